"""A stage with meta-learning: orders, attackers, the adaptive weight; `ByHand`, for the tests beside this file."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_suite import Example, TrainingError
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.specs import Train
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_knowledge.cosine_rmu.config import CosineRmuConfig
from unlearn_suite_knowledge.cosine_rmu.draws import inner_rate
from unlearn_suite_knowledge.cosine_rmu.objective import CosineRmu

BLOCK, STEPS = 2, 4
WORDS = ["red", "blue", "green", "black", "white", "brown", "grey", "pink"]


class Services:
    def __init__(self) -> None:
        self.said: list[str] = []

    def memo(self, name: str, key: Any, build: Any) -> Any:
        return build()

    def say(self, text: str) -> None:
        self.said.append(text)

    warn = say


def run(folder: Path, *, steps: int = STEPS, stop_after: int | None = None, **options: Any):
    """(model, objective, scalars of each step, services) of a whole stage."""
    model, services = tiny_model("llama"), Services()
    config = CosineRmuConfig(**{"block": BLOCK, "meta_start": 0.0, "width": 2, **options})
    rows: list[dict[str, float]] = []
    job = StageJob(
        index=0,
        objective=CosineRmu(config),
        train=Train(steps=steps, batch=4, length=32, lr=5e-3, save_every=2),
        required_roles=("forget", "retain"),
        examples={
            "forget": [Example(f"f{i}", f"the hat of {w} king {i}", unit=w) for i, w in enumerate(WORDS)],
            "retain": [Example(f"r{i}", f"rain falls on {w} hill {i}", unit=w) for i, w in enumerate(WORDS)],
        },
        seed=0,
        artifacts=folder,
        checkpoints=folder,
        services=services,
        on_step=lambda step, scalars: rows.append(scalars),
        should_stop=lambda: stop_after is not None and len(rows) >= stop_after,
    )
    run_stage(model, tiny_tokenizer(), job)
    return model, job.objective, rows, services


class ByHand:
    """The stage's equations on a copy of the model, whole forward passes, no views."""

    def __init__(self, model: Any, objective: CosineRmu) -> None:
        self.model, self.base = copy.deepcopy(model), tiny_model("llama")
        self.names = list(objective.ctx.trainable)
        self.ctx, self.u = objective.ctx, objective.targets.directions[""]

    @property
    def params(self) -> list[Tensor]:
        found = dict(self.model.named_parameters())
        return [found[name] for name in self.names]

    def hidden(self, model: Any, batch: Any) -> Tensor:
        given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        return model(**given, output_hidden_states=True).hidden_states[BLOCK + 1]

    def forget(self, batch: Any) -> Tensor:
        cos = torch.cosine_similarity(self.hidden(self.model, batch), self.u.view(1, 1, -1), dim=-1)
        return (0.95 - cos).clamp_min(0)[batch.mask("content")].mean()

    def apart(self, batch: Any) -> Tensor:
        h, ref = self.hidden(self.model, batch), self.hidden(self.base, batch).detach()
        return ((h - ref).square().sum(-1) / ref.square().sum(-1))[batch.mask("content")].mean()

    def next_token(self, batch: Any) -> Tensor:
        labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
        return self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss

    def grads(self, loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, self.params))

    def move(self, loss: Tensor, rate: float, normalised: bool, scale: float) -> None:
        grads = self.grads(loss)
        size = rate * scale / length(grads) if normalised else rate
        with torch.no_grad():
            for p, g in zip(self.params, grads, strict=True):
                p.sub_(size * g)


def length(tensors: list[Tensor]) -> float:
    return float(torch.cat([t.detach().flatten() for t in tensors]).norm())


@pytest.mark.parametrize("inner_loss", ["ce", "rep"])
def test_orders_and_what_the_attacker_moves(inner_loss, tmp_path):
    """On the same weights and texts: exact and finite differences agree, and differ from the first order."""
    _, objective, _, _ = run(tmp_path, steps=2, inner_lr=(0.05, 0.05), inner_loss=inner_loss, benign_share=0.0)
    ctx, found = objective.ctx, {}
    ctx.step_index = 3
    for tensors in ("same", "lora", "all"):
        for order in ("first", "finite-difference", "exact"):
            update = {"order": order, "inner_tensors": tensors, "inner_steps": 2}
            objective.meta.config = objective.config.model_copy(update=update)
            ctx.generator.manual_seed(3)
            objective.meta.add({}, 50.0)
            found[tensors, order] = torch.cat([p.grad.flatten() for p in ctx.trainable.values()])
            for p in ctx.trainable.values():
                p.grad = None
        exact = found[tensors, "exact"]
        errors = {o: float((found[tensors, o] - exact).norm() / exact.norm()) for o in ("first", "finite-difference")}
        assert torch.cosine_similarity(found[tensors, "finite-difference"], exact, dim=0) > 0.99
        assert errors["finite-difference"] < 0.2 * errors["first"]
    firsts = [found[tensors, "first"] for tensors in ("same", "lora", "all")]
    assert not any(torch.equal(firsts[i], firsts[j]) for i in range(3) for j in range(i))


@pytest.mark.parametrize(
    "options",
    [
        {"inner_tensors": "lora", "inner_optimizer": "adamw", "inner_rank": 2, "inner_steps": 2},
        {"inner_tensors": "all", "inner_steps": 2},
        {"order": "exact", "inner_steps": 2, "inner_optimizer": "sgd", "inner_loss": "rep"},
        {
            "meta": ["relearn", "benign", "generalise", "weight"],
            "inner_loss": "rep",
            "direction": "token_hash",
            "forget_form": "diverse",
            "retain_form": "cos",
        },
    ],
)
def test_whole_stages_change_the_named_tensors_only_and_resume_to_the_same_bits(options, tmp_path):
    model, objective, rows, _ = run(tmp_path / "whole", **options)
    base = tiny_model("llama")
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, dict(base.named_parameters())[n])}
    assert changed == set(objective.ctx.trainable) and len(changed) == 2
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in base.named_parameters()]
    assert len(rows) == STEPS
    run(tmp_path / "cut", stop_after=1, **options)
    resumed, again, later, _ = run(tmp_path / "cut", **options)
    assert len(later) == STEPS - 1
    for name, p in resumed.named_parameters():
        assert torch.equal(p, model.get_parameter(name)), name
    assert again.weight.value == objective.weight.value


def test_the_retain_weight_follows_its_equation(tmp_path):
    options = {"meta": ["weight"], "retain_target": 0.002, "retain_weight_lr": 500.0, "retain_weight": 3.0}
    _, objective, rows, _ = run(tmp_path, steps=7, **options)
    a = 3.0
    for row in rows:
        assert row["retain_weight"] == pytest.approx(a)
        assert row["loss"] == pytest.approx(row["forget"] + a * row["retain"] + 0.1 * row["norm"], rel=1e-5)
        a = max(a + 500.0 * (row["retain"] - 0.002), 0.0)
    assert objective.weight.value == pytest.approx(a)
    assert max(row["retain_weight"] for row in rows) > 3.0 > min(row["retain_weight"] for row in rows)


def test_an_attack_that_does_nothing_is_told_once(tmp_path):
    options = {"inner_loss": "rep", "inner_lr": (1e-7, 1e-7), "inner_steps": 1, "fork_every": 1}
    _, _, rows, services = run(tmp_path, steps=17, **options)
    assert sum("bite" in row for row in rows) == 4
    told = [line for line in services.said if "win back" in line]
    assert len(told) == 1 and "raise inner_lr" in told[0]


def test_an_attack_that_explodes_is_told_once(tmp_path):
    _, objective, _, services = run(tmp_path, steps=1, meta="relearn", inner_loss="rep")
    before = len(services.said)
    for ratio in (9.0, 11.0, 400.0):
        objective.meta.bite.judge(ratio)
    assert len(services.said) == before + 1 and "11 times" in services.said[-1]


def test_an_attack_that_wins_all_back_for_ever_is_told_once(tmp_path):
    _, objective, _, services = run(tmp_path, steps=1, meta="relearn", inner_loss="rep")
    before = len(services.said)
    for after in (0.9, 0.8, 0.85, 0.7, 0.6, 0.5):  # the forget loss falls, so the attack can be withstood
        objective.meta.bite.judge(1.0, 0.95, after)
    assert len(services.said) == before
    for _ in range(4):
        objective.meta.bite.judge(1.0, 0.95, 0.9)
    assert len(services.said) == before + 1 and "win back 95 %" in services.said[-1]


def test_a_meta_gradient_that_is_not_finite_names_the_attackers_rate(tmp_path):
    with pytest.raises(TrainingError, match="meta-gradient is not finite at step 0") as raised:
        run(tmp_path, inner_lr=(2e37, 2e37), benign_share=0.0)
    assert "inner_lr" in str(raised.value.hint)


@pytest.mark.parametrize("apart", [False, True])
def test_whether_the_plain_loss_reads_the_attackers_texts(apart, tmp_path):
    _, objective, _, _ = run(tmp_path, steps=1, inner_loss="rep", attack_texts="apart" if apart else "shared")
    units = {role: {e.example.unit for e in data.encoded} for role, data in objective.ctx.roles.items()}
    assert units["meta-attack"] | units["meta-forget"] == set(WORDS) and not units["meta-attack"] & units["meta-forget"]
    assert units["forget"] == (units["meta-forget"] if apart else set(WORDS))


def test_generalise_tells_of_an_explosion_too(tmp_path):
    _, objective, rows, _ = run(tmp_path, steps=3, meta="generalise", fork_every=1, meta_start=0.0)
    assert objective.meta.bite.ratios == [row["generalise_norm_ratio"] for row in rows]


def test_the_page_tells_whether_the_attacks_bite(tmp_path):
    options = {"inner_loss": "rep", "inner_lr": (1e-7, 1e-7), "inner_steps": 1, "fork_every": 1}
    _, _, rows, _ = run(tmp_path, steps=17, **options)
    (report,) = tmp_path.rglob("report.json")
    (table,) = [i for i in json.loads(report.read_text())["items"] if i["title"].startswith("Do the simulated")]
    bites = [row["bite"] for row in rows if "bite" in row]
    ratios = [row["meta_norm_ratio"] for row in rows if "meta_norm_ratio" in row]
    (bite, ratio) = table["rows"]
    assert bite[1:4] == pytest.approx([4, median(bites), min(bites)]) and bite[5].startswith("ALARM")
    assert ratio[1:4] == pytest.approx([len(ratios), median(ratios), max(ratios)]) and ratio[5] == "quiet"


@pytest.mark.parametrize("inner_loss", ["rep", "ce"])
def test_bite_is_the_share_of_the_lost_ability_that_is_won_back(tmp_path, inner_loss):
    """A = (L(phi) - L(psi)) / (L(phi) - L(base)), L by plain forward passes in float64."""
    model, objective, _, _ = run(tmp_path, steps=8, meta="relearn", inner_loss=inner_loss, meta_weight=0.01)
    ctx, meta = objective.ctx, objective.meta
    ctx.step_index = 0
    x = ctx.draw("meta-forget", 3)
    base = tiny_model("llama").double()
    states = {}

    def loss():
        now = copy.deepcopy(model).double()
        kw = {"input_ids": x.input_ids, "attention_mask": x.attention_mask, "output_hidden_states": True}
        with torch.no_grad():
            out, ref = now(**kw), base(**kw)
            mask = x.mask("content")
            if inner_loss == "rep":
                block = meta.terms.block
                h, h_ref = (o.hidden_states[block + 1][mask] for o in (out, ref))
                return float(((h - h_ref).square().sum(-1) / h_ref.square().sum(-1)).mean()), 0.0
            labels, keep = x.input_ids[:, 1:], mask[:, 1:]
            found = []
            for o in (out, ref):
                logprobs = o.logits[:, :-1].log_softmax(-1).gather(-1, labels[..., None])[..., 0]
                found.append(float(-logprobs[keep].mean()))
            return tuple(found)

    reading = meta.bite.reading(x)
    states["phi"], zero = loss()
    with torch.no_grad():
        for name, p in ctx.trainable.items():  # an attacker that undoes a third of the way
            p.add_((base.get_parameter(name).float() - p) / 3)
    ctx.policy.clear()
    reading.after()
    states["psi"], zero = loss()
    expected = (states["phi"] - states["psi"]) / (states["phi"] - zero)
    assert reading.value() == pytest.approx(expected, rel=1e-3) and 0.05 < expected < 0.95


def test_a_biting_attack_wins_back_what_was_forgotten(tmp_path):
    """With the attack's own loss and a fair rate, A is well above 0 once something has been forgotten."""
    options = {"inner_loss": "rep", "inner_lr": (5e-2, 5e-2), "meta_weight": 0.01, "retain_weight": 1.0}
    _, _, rows, _ = run(tmp_path, steps=11, **options)
    bites = [row["bite"] for row in rows if "bite" in row]
    assert bites[-1] > 0.2


@pytest.mark.parametrize(
    ("meta", "kinds"), [("none", set()), ("relearn", {"relearn"}), (["relearn", "weight"], {"relearn", "weight"})]
)
def test_forms_of_meta(meta, kinds):
    assert CosineRmuConfig(meta=meta).kinds == kinds


def test_the_weight_of_the_meta_gradient_rises_after_its_start(tmp_path):
    """gamma_s = gamma clip((s / steps - start) / start, 0, 1), on every `fork_every`-th step only."""
    options = {"meta_start": 0.25, "meta_weight": 2.0, "fork_every": 3, "inner_loss": "rep"}
    _, objective, rows, _ = run(tmp_path, steps=16, **options)
    for step, row in enumerate(rows):
        gamma = 2.0 * min(max((step / 16 - 0.25) / 0.25, 0.0), 1.0)
        objective.ctx.step_index = step
        assert objective.meta.weight() == pytest.approx(gamma)
        assert ("meta_forget" in row) == (gamma > 0 and step % 3 == 0), step


def test_attackers_rates_are_spread_evenly_over_their_logarithm(tmp_path):
    _, objective, _, _ = run(tmp_path, steps=1, inner_lr=(1e-4, 1e-2), benign_share=0.3, inner_loss="ce")
    drawn = torch.tensor([math.log10(inner_rate(objective.ctx, objective.config)) for _ in range(2000)])
    assert drawn.min() >= -4 and drawn.max() <= -2
    counts = torch.histc(drawn, 4, min=-4, max=-2)
    assert (counts - 500).abs().max() < 5 * math.sqrt(500 * 0.75)
    share = sum(objective.meta._is_benign() for _ in range(2000)) / 2000
    assert share == pytest.approx(0.3, abs=5 * math.sqrt(0.3 * 0.7 / 2000))
