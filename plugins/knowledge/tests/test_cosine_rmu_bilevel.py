"""`weight_rule: bilevel`: the slope of a validation loss in a, and the a that follows it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from unlearn_suite import TrainingError
from unlearn_suite_knowledge.cosine_rmu import validation
from unlearn_suite_knowledge.cosine_rmu.config import CosineRmuConfig

from .test_cosine_rmu_meta import ByHand, length, run

BILEVEL = {"meta": "weight", "weight_rule": "bilevel", "retain_weight": 3.0}
STEP = 1


def stage(folder: Any, **options: Any):
    """After some steps, so that L_R has a gradient."""
    _, objective, _, _ = run(folder, steps=5, **{**BILEVEL, **options})
    objective.ctx.step_index = STEP
    return objective


def in_float64(model: Any) -> Any:
    """With transformers' RMSNorm, which computes in float32 whatever it is given, written anew."""
    for m in model.double().modules():
        if type(m).__name__.endswith("RMSNorm"):
            m.forward = lambda h, m=m: m.weight * h * (h.square().mean(-1, keepdim=True) + m.variance_epsilon).rsqrt()
    return model


class Reference(ByHand):
    """V(psi(a)) in float64 on transformers' own passes: nothing but the equations."""

    def __init__(self, objective: Any, rate: float, normalised: bool, c: float) -> None:
        super().__init__(objective.ctx.views.replay.model, objective)
        self.model, self.base, self.u = in_float64(self.model), in_float64(self.base), self.u.double()
        self.start = [p.detach().clone() for p in self.params]
        self.rate, self.normalised, self.c = rate, normalised, c

    def put_back(self) -> None:
        with torch.no_grad():
            for p, value in zip(self.params, self.start, strict=True):
                p.copy_(value)

    def v(self, a: float, training: dict[str, Any], held: dict[str, Any]) -> torch.Tensor:
        self.put_back()
        loss = self.forget(training["forget"]) + a * self.apart(training["retain"])
        self.move(loss, self.rate, self.normalised, length(self.start))
        return self.forget(held["forget"]) + self.c * self.apart(held["retain"])


def batches(ctx: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    roles = ("forget", "retain")
    return {r: ctx.draw(r, STEP) for r in roles}, {r: ctx.draw(f"held-{r}", STEP) for r in roles}


@pytest.mark.parametrize("c", [None, 40.0])
@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.02), ("sgd_norm", 0.05)])
def test_the_slope_is_that_of_the_validation_loss_in_a(optimizer, rate, c, tmp_path):
    """dV/da against central differences of V(psi(a)); the pull is dV/dlog a over |psi - phi| |grad V(psi)|."""
    objective = stage(tmp_path, inner_optimizer=optimizer, inner_lr=(rate, rate), validation_weight=c)
    training, held = batches(objective.ctx)
    a, e = 2.0, 1e-3
    hand = Reference(objective, rate, optimizer == "sgd_norm", 3.0 if c is None else c)
    up, down = (float(hand.v(a + side * e, training, held).detach()) for side in (1, -1))
    slope = (up - down) / (2 * e)
    value = hand.v(a, training, held)
    most = length(hand.grads(value)) * length([p - q for p, q in zip(hand.params, hand.start, strict=True)])
    look = objective.weight.validation.look(training["forget"], training["retain"], a)
    assert look.scalars["weight_slope"] == pytest.approx(slope, rel=1e-4)
    assert look.pull == pytest.approx(a * slope / most, rel=1e-4) and 1e-4 < abs(look.pull) < 1
    told = look.scalars["validation_forget"] + hand.c * look.scalars["validation_retain"]
    assert told == pytest.approx(float(value.detach()), rel=1e-5)


@pytest.mark.parametrize("a", [0.3, 30.0])
def test_where_both_texts_are_the_same_a_goes_to_c(a, tmp_path):
    """Normalised and short steps: dV/da = -s (c - a) (|g_F|^2 |g_R|^2 - <g_F, g_R>^2) / |g_F + a g_R|^2."""
    c, rate = 3.0, 1e-5
    objective = stage(tmp_path, inner_lr=(rate, rate), validation_weight=c)
    ctx, (training, _) = objective.ctx, batches(objective.ctx)
    ctx.roles["held-forget"], ctx.roles["held-retain"] = ctx.roles["forget"], ctx.roles["retain"]
    hand = Reference(objective, rate, True, c)
    f, r = (
        torch.cat([g.flatten() for g in hand.grads(loss)])
        for loss in (hand.forget(training["forget"]), hand.apart(training["retain"]))
    )
    s = rate * length(hand.start) / float((f + a * r).norm())
    expected = -s * (c - a) * float((f @ f) * (r @ r) - (f @ r) ** 2) / float((f + a * r).square().sum())
    look = objective.weight.validation.look(training["forget"], training["retain"], a)
    assert look.scalars["weight_slope"] == pytest.approx(expected, rel=2e-2)
    assert (expected > 0) == (a > c)


def test_the_look_leaves_weights_and_gradients_alone(tmp_path):
    objective = stage(tmp_path)
    ctx = objective.ctx
    for p in ctx.trainable.values():
        p.grad = torch.full_like(p, 7.0)
    before = {n: (p.detach().clone(), p.grad) for n, p in ctx.trainable.items()}
    training, _ = batches(ctx)
    objective.weight.validation.look(training["forget"], training["retain"], 3.0)
    assert all(torch.equal(p, before[n][0]) and p.grad is before[n][1] for n, p in ctx.trainable.items())
    assert all((p.grad == 7.0).all() for p in ctx.trainable.values())


def test_held_out_units_are_never_trained_on(tmp_path):
    objective = stage(tmp_path, meta=["weight", "relearn"], inner_loss="rep", validation_share=0.3)
    units = {role: {e.example.unit for e in data.encoded} for role, data in objective.ctx.roles.items()}
    for role in ("forget", "retain"):
        assert len(units[f"held-{role}"]) == 2 and len(units[role]) == 6
        assert not units[role] & units[f"held-{role}"]
    assert units["meta-attack"] | units["meta-forget"] == units["forget"]
    again = stage(tmp_path / "again", validation_share=0.3).ctx.roles
    assert {e.example.unit for e in again["held-forget"].encoded} == units["held-forget"]
    most = stage(tmp_path / "most", validation_share=0.99).ctx.roles
    assert len(most["held-retain"]) == 7 and len(most["retain"]) == 1


def test_a_follows_the_pull_within_its_bounds(tmp_path):
    """a <- a exp(-eta_v clip(pull, -1, 1)), on every `fork_every`-th step; told beside L_F, L_R and the slope."""
    options = {"validation_lr": 0.7, "fork_every": 2, "inner_lr": (0.05, 0.05), "validation_weight": 60.0}
    _, objective, rows, _ = run(tmp_path, steps=6, **{**BILEVEL, **options})
    a = [row["retain_weight"] for row in rows] + [objective.weight.value]
    assert a[0] == 3.0 and a[1] == a[0]  # L_R has no gradient at the start
    for step, row in enumerate(rows):
        assert row["loss"] == pytest.approx(row["forget"] + a[step] * row["retain"] + 0.1 * row["norm"], rel=1e-5)
        assert ("weight_slope" in row) == ("validation_retain" in row) == (step % 2 == 0)
        if step % 2:
            assert a[step + 1] == a[step]
        elif step:
            assert row["weight_slope"] * math.log(a[step + 1] / a[step]) < 0
            assert abs(math.log(a[step + 1] / a[step])) <= 0.7 + 1e-9
    weight = objective.weight
    for pull, expected in ((0.25, math.exp(-0.7 / 4)), (-5.0, math.exp(0.7)), (5.0, math.exp(-0.7))):
        weight.value = 2.0
        assert weight._descent(pull) == pytest.approx(2.0 * expected)
    for value, pull, expected in ((299.0, -1.0, 300.0), (0.031, 1.0, 0.03)):
        weight.value = value
        assert weight._descent(pull) == pytest.approx(expected)


def test_a_resumed_stage_ends_with_the_same_bits(tmp_path):
    options = {**BILEVEL, "meta": ["weight", "generalise"], "order": "reptile", "validation_lr": 0.5, "inner_steps": 2}
    model, objective, rows, _ = run(tmp_path / "whole", **options)
    run(tmp_path / "cut", stop_after=2, **options)
    resumed, again, later, _ = run(tmp_path / "cut", **options)
    assert len(later) == 2 and later[0]["retain_weight"] == rows[2]["retain_weight"] != 3.0
    assert again.weight.value == objective.weight.value
    assert again.state_dict()["retain_weight"] == objective.weight.value
    for name, p in resumed.named_parameters():
        assert torch.equal(p, model.get_parameter(name)), name


def test_off_by_default_nothing_is_held_out(tmp_path):
    _, objective, rows, _ = run(tmp_path, steps=1, meta="weight")
    assert objective.weight.validation is None and set(objective.ctx.roles) == {"forget", "retain"}
    assert "weight_slope" not in rows[0] and CosineRmuConfig().weight_rule == "dual"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"meta": "relearn"}, "weight in meta"),
        ({"meta": "none"}, "weight in meta"),
        ({"inner_optimizer": "adamw"}, "not through adamw"),
        ({"retain_weight": 0.0}, "above 0"),
        ({"validation_share": 1.0}, "less than 1"),
        ({"validation_weight": 0.0}, "greater than 0"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    with pytest.raises(ValueError, match=words):
        CosineRmuConfig(**{**BILEVEL, **options})


def test_one_unit_cannot_be_split(tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "_unit", lambda example: "one")
    with pytest.raises(TrainingError, match="only one"):
        stage(tmp_path)
