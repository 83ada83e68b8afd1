"""The simulated attacker: what it computes, and that it leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlearn_suite.engine.adversary import Adversary


def quadratic():
    """Two tensors, an inner loss and an outer loss with known gradients."""
    generator = torch.Generator().manual_seed(0)
    params = {"a": nn.Parameter(torch.randn(3, 2, generator=generator)), "b": nn.Parameter(torch.ones(4))}

    def inner(_: int) -> torch.Tensor:
        return sum((p - 2.0).square().sum() for p in params.values())

    def outer() -> torch.Tensor:
        return sum(p.pow(3).sum() for p in params.values())

    return params, inner, outer


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_norm", "adamw"])
def test_weights_and_gradients_are_restored_bit_for_bit(optimizer):
    params, inner, outer = quadratic()
    for p in params.values():
        p.grad = torch.full_like(p, 7.0)
    before = {n: p.detach().clone() for n, p in params.items()}
    found = Adversary(params).attack(inner, outer, lr=0.05, readouts={2: 0.5, 4: 0.5}, optimizer=optimizer)
    assert found.displacement > 0
    assert found.inner_losses[-1] < found.inner_losses[0]
    for name, p in params.items():
        assert torch.equal(p, before[name])
        assert torch.equal(p.grad, torch.full_like(p, 7.0))


def test_first_order_gradient_is_the_outer_gradient_at_the_attacked_weights():
    params, inner, outer = quadratic()
    found = Adversary(params).attack(inner, outer, lr=0.1, readouts={1: 1.0, 3: 2.0}, optimizer="sgd")
    for name, p in params.items():
        psi = p.detach().double().clone()
        expected = torch.zeros_like(psi)
        for k in (1, 2, 3):
            psi = psi - 0.1 * 2.0 * (psi - 2.0)
            expected += {1: 1.0, 3: 2.0}.get(k, 0.0) * 3.0 * psi**2
        torch.testing.assert_close(found.gradient[name].double(), expected, rtol=1e-5, atol=1e-6)


def test_sgd_norm_moves_by_the_given_share_of_the_weights():
    params, inner, outer = quadratic()
    found = Adversary(params).attack(inner, outer, lr=0.01, readouts={1: 1.0})
    assert found.displacement == pytest.approx(0.01, rel=1e-4)


def test_a_failing_attack_leaves_the_weights_alone():
    params, inner, _ = quadratic()
    before = {n: p.detach().clone() for n, p in params.items()}

    def broken() -> torch.Tensor:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        Adversary(params).attack(inner, broken, lr=0.1, readouts={2: 1.0})
    assert all(torch.equal(p, before[n]) for n, p in params.items())
