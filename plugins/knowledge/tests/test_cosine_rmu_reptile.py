"""`order: reptile`: the way of some unlearning steps, gone backwards."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from unlearn_suite_knowledge.cosine_rmu.config import CosineRmuConfig

from .test_cosine_rmu_meta import ByHand, length, run

RATE, K, STEP = 0.03, 3, 2


def stage(folder: Any, **options: Any):
    given = {"meta": "generalise", "order": "reptile", "inner_steps": K, "inner_lr": (RATE, RATE), **options}
    _, objective, rows, _ = run(folder, steps=2, **given)
    objective.ctx.step_index = STEP
    return objective, rows


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_norm"])
def test_the_gradient_is_the_way_back_from_k_unlearning_steps(optimizer, tmp_path):
    """g = phi - psi_K in float64 on transformers' own passes, clipped to |grad L_F(phi; x)|."""
    a, weight = 9.0, 0.5
    objective, _ = stage(tmp_path, inner_optimizer=optimizer, meta_weight=weight)
    ctx = objective.ctx
    hand = ByHand(ctx.views.replay.model, objective)
    hand.model, hand.base, hand.u = hand.model.double(), hand.base.double(), hand.u.double()
    x, scale = ctx.draw("meta-forget", STEP), length(hand.params)
    plain, start = length(hand.grads(hand.forget(x))), copy.deepcopy(hand.params)
    for k in range(K):
        loss = hand.forget(ctx.draw("meta-attack", STEP * K + k))
        hand.move(loss, RATE, optimizer == "sgd_norm", scale)
    g = [phi.detach() - psi.detach() for phi, psi in zip(start, hand.params, strict=True)]
    after = float((hand.forget(x) + a * hand.apart(ctx.draw("retain", ctx.train.steps + STEP))).detach())
    factor = weight * min(1.0, plain / length(g))
    assert (factor < weight) == (optimizer == "sgd_norm")  # clipped and not
    scalars = objective.meta.add({"retain": ctx.draw("retain", STEP)}, a)
    for name, expected in zip(hand.names, g, strict=True):
        found = ctx.trainable[name].grad.double()
        torch.testing.assert_close(
            found, factor * expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()) * factor
        )
    assert scalars["generalise_loss"] == pytest.approx(after, rel=1e-4)
    assert scalars["generalise_norm_ratio"] == pytest.approx(length(g) / plain, rel=1e-4)
    assert scalars["inner_displacement"] == pytest.approx(length(g) / scale, rel=1e-4)


def test_a_descent_step_unlearns(tmp_path):
    """phi - t g is nearer to psi_K, and L_F is lower there, on the other half as well."""
    objective, _ = stage(tmp_path)
    ctx, terms = objective.ctx, objective.terms
    x = ctx.draw("meta-forget", STEP)

    def value() -> float:
        ctx.policy.clear()
        return float(terms.forget(x).detach())

    before = value()
    objective.meta.add({"retain": ctx.draw("retain", STEP)}, 1.0)
    with torch.no_grad():
        for p in ctx.trainable.values():
            p.sub_(0.1 * p.grad)
    assert value() < before - 1e-4


def test_the_inner_texts_are_not_those_the_norm_is_measured_on(tmp_path):
    objective, _ = stage(tmp_path)
    seen: list[tuple[str, set[str]]] = []
    draw = objective.ctx.draw

    def noted(role: str, *args: Any) -> Any:
        batch = draw(role, *args)
        seen.append((role, {e.unit for e in batch.examples}))
        return batch

    objective.ctx.draw = noted
    objective.meta.add({"retain": draw("retain", STEP)}, 1.0)
    walked = [units for role, units in seen if role == "meta-attack"]
    (measured,) = (units for role, units in seen if role == "meta-forget")
    assert len(walked) == K and not set.union(*walked) & measured


def test_no_inner_step_is_plain_bit_for_bit_and_long_ways_alarm_nobody(tmp_path):
    plain, *_ = run(tmp_path / "a", meta="none")
    none, *_ = run(tmp_path / "b", meta="generalise", order="reptile", inner_steps=0)
    far, objective, rows, services = run(tmp_path / "c", meta="generalise", order="reptile", inner_lr=(0.2, 0.2))
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), none.parameters(), strict=True))
    assert any(not torch.equal(p, q) for p, q in zip(plain.parameters(), far.parameters(), strict=True))
    assert max(row["generalise_norm_ratio"] for row in rows) > 10
    assert not objective.meta.bite.ratios and not [line for line in services.said if "meta-gradient" in line]


@pytest.mark.parametrize("meta", ["none", "relearn", "weight", ["relearn", "generalise"], ["benign", "generalise"]])
def test_it_is_a_form_of_generalise_alone(meta):
    with pytest.raises(ValueError, match="reptile needs meta: generalise"):
        CosineRmuConfig(meta=meta, order="reptile")
    assert CosineRmuConfig(meta=["generalise", "weight"], order="reptile", inner_optimizer="adamw").generalises
