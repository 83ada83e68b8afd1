"""The meta-gradients against loops by hand on transformers' own passes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from .test_cosine_rmu_meta import ByHand, length, run


@pytest.mark.parametrize(("reading", "inner_loss"), [("relearn", "ce"), ("relearn", "rep"), ("benign", "rep")])
@pytest.mark.parametrize("optimizer", ["sgd", "sgd_norm"])
def test_the_gradient_after_an_attack(reading, inner_loss, optimizer, tmp_path):
    rate, k_last, step = 0.02, 3, 4
    options = {"meta": reading, "inner_loss": inner_loss, "inner_optimizer": optimizer, "benign_share": 0.0}
    model, objective, _, _ = run(
        tmp_path, steps=1, inner_lr=(rate, rate), inner_steps=k_last, meta_weight=0.5, **options
    )
    hand = ByHand(model, objective)
    ctx, hand.ctx.step_index = objective.ctx, step
    x = ctx.draw("meta-forget", step)
    plain, scale = hand.grads(hand.forget(x)), length(hand.params)
    weights = {1: math.exp(-1.0), 3: 1.0}
    meta = [torch.zeros_like(p) for p in plain]
    for k in range(1, k_last + 1):
        text = ctx.draw("retain" if reading == "benign" else "meta-attack", step * k_last + k - 1)
        rep = inner_loss == "rep" and reading == "relearn"
        hand.move(hand.apart(text) if rep else hand.next_token(text), rate, optimizer == "sgd_norm", scale)
        if k in weights:
            share = weights[k] / sum(weights.values())
            meta = [m + share * g for m, g in zip(meta, hand.grads(hand.forget(x)), strict=True)]
    factor = 0.5 * min(1.0, length(plain) / length(meta))
    scalars = objective.meta.add({}, 50.0)
    for name, expected in zip(hand.names, meta, strict=True):
        torch.testing.assert_close(ctx.trainable[name].grad, factor * expected, rtol=2e-3, atol=1e-6)
    assert scalars["meta_norm_ratio"] == pytest.approx(length(meta) / length(plain), rel=1e-3)
    assert scalars["meta_forget"] == pytest.approx(float(hand.forget(x).detach()), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_norm"])
def test_the_gradient_after_an_unlearning_step(optimizer, tmp_path):
    rate, step, a = 0.02, 1, 9.0
    model, objective, _, _ = run(tmp_path, steps=1, meta="generalise", inner_lr=(rate, rate), inner_optimizer=optimizer)
    hand, ctx = ByHand(model, objective), objective.ctx
    ctx.step_index = step
    x, retain = ctx.draw("meta-forget", step), ctx.draw("retain", step)
    plain, scale = hand.grads(hand.forget(x)), length(hand.params)
    inner = hand.forget(ctx.draw("meta-attack", step)) + a * hand.apart(retain)
    hand.move(inner, rate, optimizer == "sgd_norm", scale)
    meta = hand.grads(hand.forget(x) + a * hand.apart(ctx.draw("retain", 1 + step)))
    factor = min(1.0, length(plain) / length(meta))
    objective.meta.add({"retain": retain}, a)
    for name, expected in zip(hand.names, meta, strict=True):
        torch.testing.assert_close(ctx.trainable[name].grad, factor * expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize(("order", "tolerance"), [("exact", 1e-3), ("finite-difference", 2e-2)])
def test_the_gradient_through_an_unlearning_step(order, tolerance, tmp_path):
    """d/dphi of L_F + a L_R at phi - eta grad(L_F + a L_R)(phi), through both, in float64."""
    rate, step, a = 0.05, 1, 9.0
    options = {"inner_lr": (rate, rate), "inner_optimizer": "sgd", "order": order}
    model, objective, _, _ = run(tmp_path, steps=1, meta="generalise", **options)
    hand, ctx = ByHand(model, objective), objective.ctx
    for one in (hand.model, hand.base):
        one.double().set_attn_implementation("eager")  # the fused attention has no second derivative
    hand.u = hand.u.double()
    ctx.step_index = step
    x, retain, other = ctx.draw("meta-forget", step), ctx.draw("retain", step), ctx.draw("retain", 1 + step)
    phi = dict(zip(hand.names, hand.params, strict=True))
    inner = hand.forget(ctx.draw("meta-attack", step)) + a * hand.apart(retain)
    taken = torch.autograd.grad(inner, list(phi.values()), create_graph=True)
    psi = {name: p - rate * g for (name, p), g in zip(phi.items(), taken, strict=True)}
    plain = length(hand.grads(hand.forget(x)))
    whole = hand.model

    class At:
        """The model at psi."""

        def __call__(self, **given: Any) -> Any:
            return torch.func.functional_call(whole, psi, (), given)

    hand.model = At()
    outer = hand.forget(x) + a * hand.apart(other)
    meta = torch.autograd.grad(outer, list(phi.values()), retain_graph=True)
    first = torch.autograd.grad(outer, list(psi.values()))
    objective.meta.add({"retain": retain}, a)
    found = torch.cat([ctx.trainable[name].grad.flatten() for name in hand.names]).double()
    through, without = (torch.cat([g.flatten() for g in gs]) for gs in (meta, first))
    expected = through * min(1.0, plain / float(through.norm()))
    assert float((found - expected).norm() / expected.norm()) < tolerance
    assert float((through - without).norm() / through.norm()) > 3 * tolerance


def test_readings_add_up(tmp_path):
    """Relearn beside generalise: the sum of the two gradients, each clipped for itself."""
    rate, step, a = 0.02, 4, 9.0
    meta, options = ["relearn", "generalise"], {"inner_lr": (rate, rate), "inner_optimizer": "sgd", "inner_steps": 1}
    model, objective, _, _ = run(tmp_path, steps=1, meta=meta, inner_loss="rep", meta_weight=0.5, **options)
    ctx = objective.ctx
    ctx.step_index = step
    x, retain = ctx.draw("meta-forget", step), ctx.draw("retain", step)
    hand = ByHand(model, objective)
    plain = length(hand.grads(hand.forget(x)))
    hand.move(hand.apart(ctx.draw("meta-attack", step)), rate, False, 1.0)
    relearn = hand.grads(hand.forget(x))
    hand = ByHand(model, objective)
    hand.move(hand.forget(ctx.draw("meta-attack", step)) + a * hand.apart(retain), rate, False, 1.0)
    generalise = hand.grads(hand.forget(x) + a * hand.apart(ctx.draw("retain", 1 + step)))
    objective.meta.add({"retain": retain}, a)
    factors = [0.5 * min(1.0, plain / length(one)) for one in (relearn, generalise)]
    for name, first, second in zip(hand.names, relearn, generalise, strict=True):
        expected = factors[0] * first + factors[1] * second
        torch.testing.assert_close(ctx.trainable[name].grad, expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize(("optimizer", "tensors"), [("adamw", "same"), ("adamw", "all"), ("sgd", "all")])
def test_the_gradient_after_other_attackers(optimizer, tensors, tmp_path):
    """torch's own AdamW or plain steps, on the trained tensors or on every weight; the gradient is of the trained."""
    rate, k_last, step = 0.02 if optimizer == "sgd" else 2e-3, 2, 4
    options = {"inner_optimizer": optimizer, "inner_tensors": tensors, "benign_share": 0.0}
    model, objective, _, _ = run(tmp_path, steps=1, inner_lr=(rate, rate), inner_steps=k_last, **options)
    hand = ByHand(model, objective)
    ctx, hand.ctx.step_index = objective.ctx, step
    x = ctx.draw("meta-forget", step)
    plain = hand.grads(hand.forget(x))
    moved = list(hand.model.parameters()) if tensors == "all" else hand.params
    for p in moved:
        p.requires_grad_(True)
    kind = torch.optim.SGD(moved, lr=rate) if optimizer == "sgd" else torch.optim.AdamW(moved, lr=rate, weight_decay=0)
    weights = {1: math.exp(-0.5), 2: 1.0}
    meta = [torch.zeros_like(p) for p in plain]
    for k in range(1, k_last + 1):
        kind.zero_grad()
        hand.next_token(ctx.draw("meta-attack", step * k_last + k - 1)).backward()
        kind.step()
        share = weights[k] / sum(weights.values())
        meta = [m + share * g for m, g in zip(meta, hand.grads(hand.forget(x)), strict=True)]
    objective.meta.add({}, 50.0)
    factor = min(1.0, length(plain) / length(meta))
    found = torch.cat([ctx.trainable[name].grad.flatten() for name in hand.names])
    expected = factor * torch.cat([g.flatten() for g in meta])
    assert float((found - expected).norm() / expected.norm()) < 5e-3
