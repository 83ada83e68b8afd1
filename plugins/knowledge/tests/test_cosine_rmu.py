"""cosine-rmu: its equations against float64, and its behaviour on tiny models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlearn_suite import Example, losses
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.specs import Train
from unlearn_suite.testing.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer
from unlearn_suite_knowledge.cosine_rmu import directions
from unlearn_suite_knowledge.cosine_rmu import losses as own
from unlearn_suite_knowledge.cosine_rmu.config import CosineRmuConfig
from unlearn_suite_knowledge.cosine_rmu.meta import readout_weights
from unlearn_suite_knowledge.cosine_rmu.objective import CosineRmu


class Services:
    def __init__(self) -> None:
        self.said: list[str] = []

    def sample(self, *_: Any, **__: Any) -> list[list[str]]:
        raise AssertionError("cosine-rmu does not sample")

    def memo(self, name: str, key: Any, build: Any) -> Any:
        return build()

    def say(self, text: str) -> None:
        self.said.append(text)

    warn = say


def activations(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_toward_at_and_against_the_target():
    u = torch.nn.functional.normalize(activations(0, 16), dim=0)
    assert float(own.toward(5.0 * u[None, None], u, 1.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(own.toward(-u[None, None], u, 1.0)) == pytest.approx(2.0, abs=1e-6)


def test_toward_ignores_the_norm_and_its_gradient_is_orthogonal():
    u = torch.nn.functional.normalize(activations(0, 16), dim=0)
    h = activations(1, 2, 3, 16).requires_grad_()
    torch.testing.assert_close(own.toward(3.0 * h, u, 0.95), own.toward(h, u, 0.95))
    (g,) = torch.autograd.grad(own.toward(h, u, 1.0).sum(), h)
    along = (g * h).sum(-1).abs()
    assert (along < 1e-5 * g.norm(dim=-1) * h.norm(dim=-1)).all()


def test_equations_equal_a_float64_transcription():
    h, ref = activations(2, 2, 4, 8) * 3, activations(3, 2, 4, 8)
    h[0, 0] *= 40.0
    h[0, 1] *= 0.01
    u = activations(4, 8)
    x, y, w = (t.double().numpy() for t in (h, ref, u))
    norm = np.linalg.norm
    cos = (x @ w) / (norm(x, axis=-1) * norm(w))
    log_rho = np.log(norm(x, axis=-1) / norm(y, axis=-1))
    guard = np.maximum(log_rho - math.log(4), 0) ** 2 + np.maximum(math.log(0.5) - log_rho, 0) ** 2
    expected = {
        own.toward(h, u, 0.95): np.maximum(0.95 - cos, 0),
        losses.relative_error(h, ref): ((x - y) ** 2).sum(-1) / (y**2).sum(-1),
        own.norm_guard(h, ref): guard,
    }
    for ours, theirs in expected.items():
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)
    assert (guard > 0).sum() >= 2 and (guard == 0).sum() >= 1


def test_gauss_orth_is_orthogonal_to_what_it_must_not_contain():
    f, r = activations(5, 50, 32) + 2.0, activations(6, 60, 32) - 1.0
    generator = torch.Generator().manual_seed(0)
    first = directions.draw("gauss_orth", generator, f, r, [])
    second = directions.draw("gauss_orth", generator, f, r, [first])
    top = torch.linalg.svd(r - r.mean(0), full_matrices=False).Vh[:4]
    for u in (first, second):
        assert float(u.norm()) == pytest.approx(1.0, abs=1e-6)
        for other in (f.mean(0), r.mean(0), *top):
            assert abs(float(u @ other / other.norm())) < 1e-5
    assert abs(float(first @ second)) < 1e-5
    positive = directions.draw("rand_pos", generator, f, r, [])
    assert (positive >= 0).all()


WORDS = ["red", "blue", "green", "black", "white", "brown", "grey", "pink", "gold", "cyan"]


def examples() -> dict[str, list[Example]]:
    forget = [Example(f"f{i}", f"the hat of {w} king {i}", group="hats", unit=w) for i, w in enumerate(WORDS)]
    retain = [Example(f"r{i}", f"rain falls on {w} hill {i}", unit=w) for i, w in enumerate(WORDS)]
    return {"forget": forget, "retain": retain}


def run(tmp_path: Path, arch: str = "llama", *, seed: int = 0, train: dict[str, Any] | None = None, **options: Any):
    model = tiny_model(arch)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    rows: list[dict[str, float]] = []
    job = StageJob(
        index=0,
        objective=CosineRmu(CosineRmuConfig(**options)),
        train=Train(**{"steps": 8, "lr": 5e-3, "batch": 4, "length": 32, **(train or {})}),
        required_roles=("forget", "retain"),
        examples=examples(),
        seed=seed,
        artifacts=tmp_path,
        checkpoints=tmp_path,
        services=Services(),
        on_step=lambda step, scalars: rows.append(scalars),
    )
    result = run_stage(model, tiny_tokenizer(), job)
    return model, before, rows, result


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_forget_turns_and_only_the_named_tensors_change(arch, tmp_path):
    model, before, rows, result = run(tmp_path, arch, meta="none", block=2, retain_weight=1.0, train={"steps": 25})
    assert rows[0]["retain"] == 0.0 and rows[0]["rho_forget"] == pytest.approx(1.0)
    assert rows[-1]["cos_forget"] > rows[0]["cos_forget"] + 0.05
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(result.views.trainable) and len(changed) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"meta_weight": 0.0},
        {"meta_weight": 0.0, "inner_loss": "rep"},
        {"inner_steps": 0},
        {"inner_steps": 0, "meta": ["benign", "relearn"]},
    ],
)
def test_no_meta_weight_or_no_inner_step_is_plain_cosine_rmu_bit_for_bit(tmp_path, options):
    plain, *_ = run(tmp_path / "a", meta="none")
    zero, *_ = run(tmp_path / "b", **{"meta": "relearn", "meta_start": 0.0, **options})
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), zero.parameters(), strict=True))


@pytest.mark.parametrize(("inner_loss", "optimizer"), [("ce", "sgd_norm"), ("rep", "sgd_norm"), ("ce", "adamw")])
def test_meta_steps_report_the_attack_and_change_the_result(tmp_path, inner_loss, optimizer):
    options = {"inner_loss": inner_loss, "inner_optimizer": optimizer, "meta_start": 0.2}
    meta, _, rows, _ = run(tmp_path / "a", meta="relearn", inner_lr=(1e-3, 1e-2), **options)
    plain, *_ = run(tmp_path / "b", meta="none")
    with_meta = [row for row in rows if "meta_forget" in row]
    assert len(with_meta) >= 4 and "meta_forget" not in rows[0]
    assert all(row["inner_displacement"] > 0 for row in with_meta)
    assert any("bite" in row for row in with_meta)
    assert any(not torch.equal(p, q) for p, q in zip(meta.parameters(), plain.parameters(), strict=True))


def test_a_vanishing_inner_rate_gives_the_plain_gradient_on_the_meta_text(tmp_path):
    """eta -> 0: the gradient at the attacked weights is the gradient at the weights."""
    _, _, rows, _ = run(tmp_path, meta="relearn", inner_loss="rep", inner_lr=(1e-9, 1e-9), meta_start=0.0)
    assert all(row["meta_norm_ratio"] == pytest.approx(1.0, rel=1e-3) for row in rows if "meta_norm_ratio" in row)


def test_readout_weights():
    weights = readout_weights(4)
    assert list(weights) == [2, 4]
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights[2] / weights[4] == pytest.approx(math.exp(-1.0))
    assert readout_weights(1) == {1: 1.0}


def test_the_depth_rule():
    from unlearn_suite import ModelShape

    def shape(n: int) -> ModelShape:
        tensors = {f"m.layers.{i}.mlp.down_proj.weight": (4, 4) for i in range(n)}
        return ModelShape(n, 4, 10, "m.layers", tensors)

    for n_blocks, expected in ((32, 7), (30, 7), (28, 6), (8, 2), (4, 1), (2, 0)):
        needs = CosineRmu(CosineRmuConfig()).requirements(shape(n_blocks))
        assert needs.reads == expected
        assert len(needs.trainable) == min(3, expected + 1)


def test_several_topics_have_several_directions(tmp_path):
    model = tiny_model("llama")
    data = examples()
    data["forget"] += [Example(f"g{i}", f"a boat of {w} wood {i}", group="boats", unit=w) for i, w in enumerate(WORDS)]
    objective = CosineRmu(CosineRmuConfig(meta="none", block=2))
    job = StageJob(
        0,
        objective,
        Train(steps=1, batch=4, length=32),
        ("forget", "retain"),
        data,
        0,
        tmp_path,
        tmp_path,
        Services(),
        lambda *_: None,
    )
    run_stage(model, tiny_tokenizer(), job)
    found = objective.targets.directions
    assert set(found) == {"hats", "boats"}
    assert abs(float(found["hats"] @ found["boats"])) < 1e-5
