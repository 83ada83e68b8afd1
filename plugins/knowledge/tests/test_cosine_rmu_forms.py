"""Every form of the terms and of the directions, against float64 transcriptions on the model's own activations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from unlearn_suite import Example, PlanError
from unlearn_suite.engine.batch import collate
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.specs import Train
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_knowledge.cosine_rmu import directions
from unlearn_suite_knowledge.cosine_rmu.config import CosineRmuConfig
from unlearn_suite_knowledge.cosine_rmu.objective import CosineRmu
from unlearn_suite_knowledge.cosine_rmu.targets import HashTargets

BLOCK = 2
WORDS = ["red", "blue", "green", "black"]
norm = np.linalg.norm


class Quiet:
    def memo(self, name: str, key: Any, build: Any) -> Any:
        return build()

    def say(self, text: str) -> None: ...

    warn = say


class Stage:
    """A stage that has been set up and whose trained weights have then been moved."""

    def __init__(self, folder: Path, add_bos: bool = False, train: dict[str, Any] | None = None, **options: Any):
        self.model, self.base = tiny_model("llama"), tiny_model("llama")
        self.objective = CosineRmu(CosineRmuConfig(**{"meta": "none", "block": BLOCK, **options}))
        forget = [Example(f"f{i}", f"the hat of {w} king {i}", group=f"g{i % 2}", unit=w) for i, w in enumerate(WORDS)]
        retain = [Example(f"r{i}", f"rain on {w} hill {i} " * (1 + i % 2), unit=w) for i, w in enumerate(WORDS)]
        job = StageJob(
            index=0,
            objective=self.objective,
            train=Train(**{"steps": 0, "batch": 4, "length": 48, **(train or {})}),
            required_roles=("forget", "retain"),
            examples={"forget": forget, "retain": retain},
            seed=0,
            artifacts=folder,
            checkpoints=folder,
            services=Quiet(),
            on_step=lambda *_: None,
        )
        run_stage(self.model, tiny_tokenizer(add_bos), job)
        self.ctx, self.terms = self.objective.ctx, self.objective.terms
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in self.ctx.trainable.values():
                p.add_(0.3 * torch.randn(p.shape, generator=generator))
        self.ctx.views.clear()

    def grow(self) -> None:
        """Weights so large that some norms leave [1/2, 4]."""
        with torch.no_grad():
            for p in self.ctx.trainable.values():
                p.mul_(25.0)
        self.ctx.views.clear()

    def activations(self, batch, model) -> np.ndarray:
        """[B, T, D] after the block, float64, from transformers' own hidden states."""
        out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
        return out.hidden_states[BLOCK + 1].detach().double().numpy()

    def log_probs(self, batch, model) -> np.ndarray:
        """[B, T - 1, V] float64: of the token after each position."""
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return torch.log_softmax(logits.double(), -1)[:, :-1].detach().numpy()


def cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x * y).sum(-1) / (norm(x, axis=-1) * norm(y, axis=-1))


@pytest.mark.parametrize("direction", ["gauss_orth", "per_doc", "token_hash"])
@pytest.mark.parametrize("form", ["toward", "away", "both", "abs", "diverse", "mse"])
def test_forget_forms(form, direction, tmp_path):
    if form == "diverse" and direction == "gauss_orth":
        pytest.skip("refused, see below")
    stage = Stage(tmp_path, forget_form=form, direction=direction, margin=0.9)
    batch = stage.ctx.draw("forget", 0)
    mask = batch.mask("content").numpy()
    h, ref = stage.activations(batch, stage.model), stage.activations(batch, stage.base)
    u = stage.objective.targets(batch).double().numpy()
    np.testing.assert_allclose(norm(u, axis=-1), 1.0, atol=1e-6)
    toward = np.maximum(0.9 - cosines(h, u), 0)[mask].mean()
    away = np.maximum(cosines(h, ref), 0)[mask].mean()
    size = np.linalg.norm(ref, axis=-1, keepdims=True)
    pools = np.stack([row[m].mean(0) for row, m in zip(h, mask, strict=True)])
    pairs = [max(cosines(pools[i], pools[j]), 0) for i in range(4) for j in range(4) if i != j]
    expected = {
        "toward": toward,
        "away": away,
        "both": toward + 0.5 * away,
        "abs": (1 - np.abs(cosines(h, u)))[mask].mean(),
        "mse": (((h - 5 * size * u) / size) ** 2).sum(-1)[mask].mean(),
        "diverse": toward + 0.1 * np.mean(pairs),
    }[form]
    assert float(stage.terms.forget(batch).detach()) == pytest.approx(expected, rel=1e-4)
    assert 0.01 < expected < (40 if form == "mse" else 1.5)


@pytest.mark.parametrize("form", ["rel_mse", "mse_rmu", "cos", "kl", "nll"])
def test_retain_forms(form, tmp_path):
    stage = Stage(tmp_path, retain_form=form)
    batch = stage.ctx.draw("retain", 0)
    mask = batch.mask("content").numpy()
    h, ref = stage.activations(batch, stage.model), stage.activations(batch, stage.base)
    square = ((h - ref) ** 2).sum(-1)
    log_rho = np.log(norm(h, axis=-1) / norm(ref, axis=-1))
    p, q = stage.log_probs(batch, stage.base), stage.log_probs(batch, stage.model)
    labels = batch.input_ids[:, 1:, None].numpy()
    expected = {
        "rel_mse": (square / (ref**2).sum(-1))[mask].mean(),
        "mse_rmu": (square / h.shape[-1])[mask].mean(),
        "cos": (1 - cosines(h, ref) + 0.1 * log_rho**2)[mask].mean(),
        "kl": (np.exp(p) * (p - q)).sum(-1)[mask[:, 1:]].mean(),
        "nll": -np.take_along_axis(q, labels, -1)[..., 0][mask[:, 1:]].mean(),
    }[form]
    assert float(stage.terms.retain(batch).detach()) == pytest.approx(expected, rel=1e-4)


def test_the_whole_loss_and_the_further_kl(tmp_path):
    stage = Stage(tmp_path, kl_weight=0.2, kl_every=3, retain_weight=7.0, norm_guard=0.3)
    batch = {role: stage.ctx.draw(role, 0) for role in ("forget", "retain")}
    for step, has_kl in ((0, True), (1, False), (3, True)):
        stage.ctx.step_index = step
        loss = stage.objective.loss(batch)
        assert ("retain_kl" in loss.parts) == has_kl
        parts = {name: float(part.detach()) for name, part in loss.parts.items()}
        expected = parts["forget"] + 7.0 * parts["retain"] + 0.3 * parts["norm"] + 0.2 * parts.get("retain_kl", 0.0)
        assert float(loss.total().detach()) == pytest.approx(expected, rel=1e-5)
        assert not has_kl or parts["retain_kl"] == pytest.approx(float(stage.terms.kl(batch["retain"]).detach()))


@pytest.mark.parametrize("direction", ["gauss_orth", "gauss", "rand_pos", "neg_mean", "token_hash", "per_doc"])
def test_directions(direction, tmp_path):
    stage = Stage(tmp_path, direction=direction)
    batch = stage.ctx.draw("forget", 0)
    u = stage.objective.targets(batch)
    b, t = batch.input_ids.shape
    assert u.shape == (b, t if direction == "token_hash" else 1, 32)
    again = Stage(tmp_path, direction=direction).objective.targets(batch)
    assert torch.equal(u, again)
    topics = {}
    for row, example in zip(u, batch.examples, strict=True):
        topics.setdefault(example.unit if direction == "per_doc" else example.group, []).append(row)
    if direction == "token_hash":
        by_token: dict[int, torch.Tensor] = {}
        for i, v in zip(batch.input_ids.flatten().tolist(), u.flatten(0, 1), strict=True):
            assert torch.equal(by_token.setdefault(i, v), v)
        rows = torch.stack(list(by_token.values()))
        assert (rows @ rows.T - torch.eye(len(rows))).abs().max() < 0.95
    else:
        assert all(torch.equal(row, rows[0]) for rows in topics.values() for row in rows)
        assert len({tuple(rows[0].flatten().tolist()) for rows in topics.values()}) == len(topics) >= 2
    if direction == "neg_mean":
        mean = {}
        for role in ("forget", "retain"):
            examples = [e.example for e in stage.ctx.roles[role].encoded]
            if role == "forget":
                examples = [e for e in examples if e.group == "g0"]
            data = stage.ctx.encode(role, examples)
            drawn = [data.batch(k, 4) for k in range(8)]
            mean[role] = np.concatenate([stage.activations(b, stage.base)[b.mask("content").numpy()] for b in drawn])
        expected = mean["retain"].mean(0) - mean["forget"].mean(0)
        np.testing.assert_allclose(topics["g0"][0][0].numpy(), expected / norm(expected), atol=1e-4)


@pytest.mark.parametrize(("kind", "drawn"), [("gauss", torch.randn), ("rand_pos", torch.rand)])
def test_plain_directions_are_what_the_generator_says(kind, drawn):
    h = torch.zeros(3, 32)
    u = directions.draw(kind, torch.Generator().manual_seed(3), h, h, [])
    raw = drawn(32, generator=torch.Generator().manual_seed(3)).double()
    torch.testing.assert_close(u.double(), raw / raw.norm(), atol=1e-7, rtol=1e-6)


def test_hashed_directions_are_gaussian_and_a_function_of_the_seed():
    ctx = SimpleNamespace(shape=SimpleNamespace(hidden_size=64), device=torch.device("cpu"))
    one, other = (HashTargets(ctx, seed, by_token=True) for seed in (1, 2))
    rows = 8 * torch.stack([one.row(str(i)) for i in range(2000)])  # of variance 1
    assert float(rows.mean()) == pytest.approx(0, abs=0.02)
    assert float(rows.pow(4).mean()) == pytest.approx(3 * 64 / 66, abs=0.06)  # of a uniform point on the sphere
    assert (rows @ rows.T / 64).triu(1).abs().max() < 6 / 8  # no two alike
    before = one.row("7")
    assert not torch.equal(before, other.row("7"))
    other.load_state_dict(one.state_dict())
    assert torch.equal(before, other.row("7"))


@pytest.mark.parametrize("scale", [2.0, 7.0])
def test_the_squared_error_has_its_scale_and_no_guard(scale, tmp_path):
    stage = Stage(tmp_path, forget_form="mse", scale=scale, norm_guard=3.0, retain_weight=2.0)
    stage.grow()
    batch = {role: stage.ctx.draw(role, 0) for role in ("forget", "retain")}
    mask = batch["forget"].mask("content").numpy()
    h, ref = (stage.activations(batch["forget"], model) for model in (stage.model, stage.base))
    u = stage.objective.targets(batch["forget"]).double().numpy()
    size = norm(ref, axis=-1, keepdims=True)
    forget = (((h - scale * size * u) / size) ** 2).sum(-1)[mask].mean()
    loss = stage.objective.loss(batch)
    assert float(loss.parts["norm"].detach()) > 0
    assert float(loss.total().detach()) == pytest.approx(forget + 2.0 * float(loss.parts["retain"].detach()), rel=1e-4)


def test_the_scalars_and_the_guard_on_a_model(tmp_path):
    stage = Stage(tmp_path, forget_form="both")
    stage.grow()
    batch = {role: stage.ctx.draw(role, 0) for role in ("forget", "retain")}
    h, ref, mask = {}, {}, {}
    for role, one in batch.items():
        h[role], ref[role] = stage.activations(one, stage.model), stage.activations(one, stage.base)
        mask[role] = one.mask("content").numpy()
    u = stage.objective.targets(batch["forget"]).double().numpy()
    rho = {role: (norm(h[role], axis=-1) / norm(ref[role], axis=-1))[mask[role]] for role in batch}
    log = np.log(rho["forget"])
    guard = np.maximum(log - np.log(4), 0) ** 2 + np.maximum(np.log(0.5) - log, 0) ** 2
    assert guard.max() > 0
    expected = {
        "cos_forget": cosines(h["forget"], u)[mask["forget"]].mean(),
        "cos_reference": cosines(h["forget"], ref["forget"])[mask["forget"]].mean(),
        "rho_forget": rho["forget"].mean(),
        "rho_retain": rho["retain"].mean(),
    }
    loss = stage.objective.loss(batch)
    assert {name: float(value) for name, value in loss.scalars.items()} == pytest.approx(expected, rel=1e-4)
    assert float(loss.parts["norm"].detach()) == pytest.approx(guard.mean(), rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"forget_form": "diverse", "direction": "token_hash", "retain_form": "kl"},
        {"forget_form": "away", "retain_form": "mse_rmu"},
        {"forget_form": "both", "direction": "per_doc", "retain_form": "cos"},
        {"forget_form": "abs", "retain_form": "nll"},
        {"forget_form": "mse"},
    ],
    ids=lambda options: str(options.get("forget_form", "toward")),
)
def test_more_padding_and_the_first_token_change_nothing(options, tmp_path):
    stage = Stage(tmp_path, add_bos=True, **options)
    for role, term in (("forget", stage.terms.forget), ("retain", stage.terms.retain), ("forget", stage.terms.norm)):
        short = collate(stage.ctx.roles[role].encoded[:4], 0)
        wider = {key: functional.pad(getattr(short, key), (0, 9)) for key in ("input_ids", "attention_mask", "in_text")}
        assert float(term(replace(short, **wider)).detach()) == pytest.approx(float(term(short).detach()), abs=1e-5)
        assert (short.input_ids[:, 0] == 1).all() and not short.mask("content")[:, 0].any()


def test_at_the_start_the_retain_terms_are_zero(tmp_path):
    for form in ("rel_mse", "mse_rmu", "cos", "kl"):
        stage = Stage(tmp_path, retain_form=form)
        stage.ctx.views.restore()
        value = float(stage.terms.retain(stage.ctx.draw("retain", 0)).detach())
        assert value == 0.0 if form in ("rel_mse", "mse_rmu") else abs(value) < 1e-6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"forget_form": "diverse"}, "token_hash or per_doc"),
        ({"order": "exact", "inner_optimizer": "adamw"}, "sgd"),
        ({"meta": []}, "none"),
        ({"meta": ["relearn", "relearn"]}, "once"),
        ({"inner_lr": (1e-2, 1e-3)}, "smaller first"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    with pytest.raises(ValueError, match=words):
        CosineRmuConfig(**options)


def test_diverse_needs_whole_batches(tmp_path):
    with pytest.raises(PlanError, match="micro_batch"):
        Stage(tmp_path, forget_form="diverse", direction="per_doc", train={"micro_batch": 2})


def test_the_topics_directions_are_kept(tmp_path):
    stage = Stage(tmp_path)
    kept = load_file(tmp_path / "directions.safetensors")
    assert set(kept) == {"g0", "g1"}
    for topic, u in kept.items():
        assert torch.equal(u, stage.objective.targets.directions[topic])
    Stage(tmp_path / "hashed", direction="token_hash")
    assert not (tmp_path / "hashed" / "directions.safetensors").exists()
