"""What a walk says of itself: the way back, and the slope of an outer loss in a weight inside the inner loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .test_adversary import Toy, flat


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 2.0), ("sgd_norm", 0.2)])
def test_the_slope_equals_central_differences(make_batch, optimizer, lr):
    """d/dt of L_outer after one step on L_0 + t L_1 at t = 0.7, float64 (GPT-2, whose norms are, too)."""
    toy = Toy(make_batch, arch="gpt2")

    def inner(t: float) -> Tensor:
        return toy.inner(0) + t * toy.inner(1)

    def after(t: float) -> float:
        with toy.adversary.walk(lambda _: inner(t), steps=1, lr=lr, optimizer=optimizer) as walk:
            walk.step()
            return float(toy.outer().detach())

    e = 3e-3
    expected = (after(0.7 + e) - after(0.7 - e)) / (2 * e)
    trained = toy.views.trainable

    def gradient(loss):
        return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))

    part = gradient(toy.inner(1))
    toy.views.policy.clear()
    with toy.adversary.walk(lambda _: inner(0.7), steps=1, lr=lr, optimizer=optimizer) as walk:
        taken = walk.step()
        found = walk.slope(taken, part, gradient(toy.outer()))
    assert found == pytest.approx(expected, rel=1e-4) and abs(expected) > 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_way_back_is_what_the_steps_add_up_to(make_batch, dtype):
    """Plain steps: psi_0 - psi_K = lr sum of the inner gradients, in bf16 that of the float32 masters."""
    toy, lr = Toy(make_batch, dtype), 0.05
    with toy.adversary.walk(lambda k: toy.inner(k).float(), steps=3, lr=lr, optimizer="sgd") as walk:
        taken = [flat(walk.step()) for _ in range(3)]
        back = walk.back()
    assert set(back) == set(toy.views.trainable) and all(b.dtype == torch.float32 for b in back.values())
    torch.testing.assert_close(flat(back), lr * sum(taken), rtol=1e-3, atol=2e-7)
