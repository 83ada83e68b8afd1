"""The objectives of docs/examples: through the suite, and against their equations in float64, written once more."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn_suite.cli import main
from unlearn_suite.engine.batch import Batch, encode
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.specs import Train
from unlearn_suite.testing.conformance.bench import WORDS, made_up
from unlearn_suite.testing.tiny import save_tiny, tiny_model, tiny_tokenizer

FOLDER = Path(__file__).parents[2] / "docs/examples"
FILES = {"salun": "SalUn", "scrub": "Scrub", "leace": "Leace"}
EXAMPLES = {role: made_up(role) for role in ("forget", "retain")}
PLAN = """
plan: 1
plugins: [{files}]
models: {{tiny: {{path: model}}}}
problems:
  - name: words
    summary: forget some words, keep others
    data: {{forget: {{use: jsonl, with: {{path: texts.jsonl}}}}, retain: {{use: jsonl, with: {{path: others.jsonl}}}}}}
    metrics: [{{use: perplexity, data: retain, want: keep}}]
arms:
  salun: {{stages: [{{use: salun, steps: 2, batch: 2}}]}}
  scrub: {{stages: [{{use: scrub, steps: 2, batch: 2}}]}}
  leace: {{stages: [{{use: leace, steps: 2, batch: 2}}]}}
"""


@dataclass
class Step:
    """A step: the model before it in float64, its batch, and what the objective told."""

    model: nn.Module
    batch: Mapping[str, Batch]
    told: Mapping[str, float]


def objective_of(name: str, **options: Any) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, FILES[name])(module.Options(**options))


def run(objective: Any, model: nn.Module, folder: Path, services: Any, steps: int = 3) -> tuple[list[Step], Any]:
    """Train `model` in place; every step, and the stage's result."""
    seen: list[Step] = []
    step = objective.step

    def noted(batch: Mapping[str, Batch]) -> Any:
        before = tiny_model().double()
        before.load_state_dict(model.state_dict())
        told = step(batch)
        seen.append(Step(before, batch, told))
        return told

    objective.step = noted
    job = StageJob(
        index=0,
        objective=objective,
        train=Train(steps=steps, lr=1e-2, batch=4, length=32),
        required_roles=("forget", "retain"),
        examples=EXAMPLES,
        seed=0,
        artifacts=folder / "artifacts",
        checkpoints=folder / "checkpoints",
        services=services,
        on_step=lambda step, scalars: None,
    )
    return seen, run_stage(model, tiny_tokenizer(), job)


class Silent:
    """Services of which nothing is asked."""

    def memo(self, name: str, key: Any, build: Any) -> Any:
        return build()

    def say(self, text: str) -> None: ...

    warn = say


def read(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits [N, V] and labels [N] of the answers' tokens."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1]
    real = batch.attention_mask[:, 1:].bool() & batch.in_text[:, 1:]
    return logits[real], batch.input_ids[:, 1:][real]


def test_scrub_is_its_equation(tmp_path):
    seen, _ = run(objective_of("scrub", alpha=0.7, gamma=0.3, max_steps=2), tiny_model(), tmp_path, Silent())
    teacher = tiny_model().double()
    for index, step in enumerate(seen):
        distance, nll = {}, {}
        for role, batch in step.batch.items():
            (p, y), (q, _) = read(teacher, batch), read(step.model, batch)
            p, log_ratio = p.softmax(-1), p.log_softmax(-1) - q.log_softmax(-1)
            distance[role], nll[role] = (p * log_ratio).sum(-1).mean(), cross_entropy(q, y)
        expected = 0.7 * distance["retain"] + 0.3 * nll["retain"] - (index < 2) * distance["forget"]
        assert step.told["loss"] == pytest.approx(float(expected.detach()), rel=1e-4)
    assert seen[1].told["leave"] < -1e-3 and "leave" not in seen[2].told


def test_salun_is_its_equation_on_the_salient_weights_alone(tmp_path):
    model, objective = tiny_model(), objective_of("salun", keep=0.3, alpha=0.4)
    seen, _ = run(objective, model, tmp_path, Silent())
    wrong = objective.wrong
    assert not (wrong == torch.arange(len(wrong))).any() and len(wrong.unique()) > len(wrong) / 2
    for step in seen:
        (z, y), (z_r, y_r) = (read(step.model, step.batch[role]) for role in ("forget", "retain"))
        expected = cross_entropy(z, wrong[y]) + 0.4 * cross_entropy(z_r, y_r)
        assert step.told["loss"] == pytest.approx(float(expected.detach()), rel=1e-4)
    before = tiny_model().double()
    for one in encode(tiny_tokenizer(), EXAMPLES["forget"], 32):
        ids, start = torch.tensor([one.input_ids]), max(one.response_start, 1)
        cross_entropy(before(input_ids=ids).logits[0, start - 1 : -1], ids[0, start:], reduction="sum").backward()
    gradients = {name: p.grad.abs() for name, p in before.named_parameters()}
    gamma = torch.cat([g.flatten() for g in gradients.values()]).quantile(0.7, interpolation="lower")
    moved = still = 0
    for (name, p), start in zip(model.named_parameters(), before.parameters(), strict=True):
        clear = (gradients[name] - gamma).abs() > 1e-4 * gamma  # float32 may see the others on either side
        salient = (gradients[name] > gamma) & clear
        changed = p.detach() != start.float()
        assert not (changed & clear & ~salient).any()
        moved, still = moved + int((changed & salient).sum()), still + int((salient & ~changed).sum())
    assert moved > 100 * still


def test_leace_leaves_no_linear_trace_and_is_the_published_formula(tmp_path):
    model, objective = tiny_model(), objective_of("leace", block=2)
    seen, result = run(objective, model, tmp_path, Silent())
    hidden, z = [], []
    for step in seen:
        for bit, role in ((1.0, "forget"), (0.0, "retain")):
            b = step.batch[role]
            out = step.model(input_ids=b.input_ids, attention_mask=b.attention_mask, output_hidden_states=True)
            hidden.append(out.hidden_states[3][:, 1:][b.attention_mask[:, 1:].bool()].detach())
            z.append(torch.full((len(hidden[-1]), 1), bit, dtype=torch.float64))
    x, z = torch.cat(hidden), torch.cat(z)
    x, z = x - x.mean(0), z - z.mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    whiten, colour = (vectors * values.pow(power) @ vectors.T for power in (-0.5, 0.5))
    concept = whiten @ (x.T @ z / len(x))
    published = torch.eye(len(whiten)) - colour @ concept @ torch.linalg.pinv(concept) @ whiten
    torch.testing.assert_close(objective.eraser(), published, rtol=1e-3, atol=1e-4)
    assert ((x @ objective.eraser().T).T @ z).norm() < 1e-4 * (x.T @ z).norm()
    for name, original in result.original.items():
        edited = published @ original.double()
        torch.testing.assert_close(dict(model.named_parameters())[name].double(), edited, rtol=1e-3, atol=1e-4)


def test_they_run_in_a_plan(tmp_path, monkeypatch, capsys):
    save_tiny(tmp_path / "model")
    for name, words in (("texts", WORDS[:4]), ("others", WORDS[4:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in words))
    files = ", ".join(str(FOLDER / f"{name}.py") for name in FILES)
    (tmp_path / "plan.yaml").write_text(PLAN.format(files=files))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["run", "plan.yaml"])
    assert left.value.code == 0, capsys.readouterr()
    assert len(list(tmp_path.glob("runs/plan/cells/*/patch.safetensors"))) == len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_they_use_public_names_only(name):
    lines = re.findall(r"^\s*(?:from|import) .*$", (FOLDER / f"{name}.py").read_text(), re.MULTILINE)
    assert {re.split(r"\s+", line.strip())[1] for line in lines} <= {"torch", "pydantic", "unlearn_suite"}
