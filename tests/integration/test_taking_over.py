"""A plan that is changed where training cannot see it: weights and scores of finished cells are taken over."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from unlearn_suite.cli import main
from unlearn_suite.testing.run_plan import Ran, run_plan

PLAN = """\
plan: 1
name: grows
plugins: [./steps.py]
models: {tiny: {path: model}}
problems:
  - name: words
    data:
      forget: {use: text, with: {path: forget.txt}}
      retain: {use: text, with: {path: retain.txt}}
      attack: {use: text, with: {path: attack.txt}}
      held: {use: text, with: {path: held.txt}}
    metrics:
      - {name: forgotten, use: perplexity, data: forget, want: higher}
arms:
  base: {stages: []}
  up: {stages: [{use: gradient-ascent, steps: 3, batch: 2, lr: 1.0e-2}]}
compute: {device: cpu}
"""
KEEP = "      - {name: kept, use: perplexity, data: held, want: keep}\narms:"
ATTACKS = "attacks:\n  - {use: relearn, with: {lr: [1.0e-2], steps: 2, batch: 1}}\ncompute:"
MORE = "attacks:\n  - {use: relearn, with: {lr: [1.0e-2], steps: 2, batch: 1}}\n  - quantise\ncompute:"
# What is computed leaves a line: a step of training, a metric that looks at a model, an attack that begins.
PLUGIN = """
from pathlib import Path
from unlearn_suite import hookimpl
from unlearn_suite.builtin.metrics.perplexity import Perplexity
from unlearn_suite_attacks.relearning import Relearn

def tell(word):
    with Path("told.txt").open("a") as file:
        print(word, file=file)

@hookimpl
def on_scalars(cell, step, scalars):
    tell("step")

for owner, name, word in ((Perplexity, "score", "score"), (Relearn, "run", "attack")):
    old = getattr(owner, name)
    if not hasattr(old, "watched"):
        def new(self, *arguments, old=old, word=word):
            tell(word)
            return old(self, *arguments)
        new.watched = True
        setattr(owner, name, new)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for role in ("forget", "retain", "attack", "held"):
        (tmp_path / f"{role}.txt").write_text("\n\n".join(f"{role} {word} line" for word in ("one", "two", "red")))
    (tmp_path / "steps.py").write_text(PLUGIN)
    return tmp_path


def changed(*pairs: tuple[str, str]) -> str:
    plan = PLAN
    for old, new in pairs:
        assert old in plan
        plan = plan.replace(old, new)
    return plan


def told(folder: Path) -> dict[str, int]:
    """How often something was computed since this was last asked."""
    path = folder / "told.txt"
    lines = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return {word: lines.count(word) for word in ("step", "score", "attack")}


def cell(ran: Ran) -> tuple[Path, dict[str, Any]]:
    """The folder of the trained cell of the plan that ran last, and its status."""
    (found,) = {row["cell"] for row in ran.records if row["arm"] not in ("base",)}
    (path,) = (ran.folder / "cells").glob(f"*{found}")
    return path, json.loads((path / "status.json").read_text())


def numbers(path: Path) -> set[tuple[str, str]]:
    """Every score of a cell, under attack as well."""
    return {(file.stem, line) for file in (path / "scores").iterdir() for line in file.read_text().splitlines()}


def test_a_metric_is_added_and_nothing_is_trained_again(folder: Path) -> None:
    before, _ = cell(run_plan(PLAN, folder))
    assert told(folder) == {"step": 3, "score": 2, "attack": 0}

    (folder / "plan.yaml").write_text(changed(("arms:", KEEP)))
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit):
        main(["run", "plan.yaml", "--dry-run"])
    assert "2 cells, 2 to do (1 trained already), in" in printed.getvalue()
    second = run_plan(changed(("arms:", KEEP)), folder)
    after, status = cell(second)
    assert told(folder) == {"step": 0, "score": 2, "attack": 0}  # the added one, of both arms
    assert after != before and status["trained_by"] == before.name
    assert f"trained already, as {before.name}" in second.told
    for name in ("scalars.jsonl", "cost.json"):
        assert (after / name).read_bytes() == (before / name).read_bytes()
    patches = [load_file(path / "patch.safetensors") for path in (before, after)]
    assert patches[0] and patches[0].keys() == patches[1].keys()
    assert all(torch.equal(values, patches[1][name]) for name, values in patches[0].items())
    with safe_open(after / "patch.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["provenance"])["id"] == after.name.rpartition(".")[2]
    assert numbers(before) < numbers(after)

    alone, _ = cell(run_plan(changed(("arms:", KEEP), ("name: grows", "name: alone")), folder))
    assert numbers(after) == numbers(alone)


def test_an_attack_is_added_and_nothing_else_is_computed_again(folder: Path) -> None:
    run_plan(PLAN, folder)
    told(folder)
    attacked, _ = cell(run_plan(changed(("compute:", ATTACKS)), folder))
    assert told(folder) == {"step": 0, "score": 1, "attack": 1}
    more, _ = cell(run_plan(changed(("compute:", MORE)), folder))
    assert told(folder) == {"step": 0, "score": 2, "attack": 0}  # 8 and 4 bits
    assert numbers(attacked) < numbers(more)
    both, _ = cell(run_plan(changed(("compute:", MORE), ("arms:", KEEP)), folder))
    assert told(folder) == {"step": 0, "score": 2, "attack": 0}  # `kept`, which no attack is to bring back
    plan = changed(("compute:", MORE), ("arms:", KEEP), ("name: grows", "name: alone"))
    assert numbers(both) == numbers(cell(run_plan(plan, folder))[0])


@pytest.mark.parametrize(
    "change",
    [
        ("lr: 1.0e-2}", "lr: 2.0e-2}"),
        ("steps: 3", "steps: 4"),
        ("plan: 1", "plan: 1\nseeds: [1]"),
        ("forget: {use: text, with: {path: forget.txt}}", "forget: {use: text, with: {path: held.txt}}"),
        ("compute: {", "compute: {precision: bf16, "),
        ("lr: 1.0e-2}", "lr: 1.0e-2, stop: {ppl_rise: 9, role: held}}"),
    ],
)
def test_other_training_is_done(folder: Path, change: tuple[str, str]) -> None:
    run_plan(PLAN, folder)
    told(folder)
    ran = run_plan(changed(change), folder)
    assert told(folder)["step"] >= 3 and "trained_by" not in cell(ran)[1]


def test_the_guards_role_counts_and_a_metrics_role_does_not(folder: Path) -> None:
    guarded = ("lr: 1.0e-2}", "lr: 1.0e-2, stop: {ppl_rise: 9, role: held}}")
    run_plan(changed(guarded), folder)
    told(folder)
    (folder / "attack.txt").write_text("something else")
    assert "trained_by" in cell(run_plan(changed(guarded), folder))[1] and told(folder)["step"] == 0
    (folder / "held.txt").write_text("something else")
    assert "trained_by" not in cell(run_plan(changed(guarded), folder))[1] and told(folder)["step"] == 3


def test_what_detectors_score_while_training_counts(folder: Path) -> None:
    watched = ("lr: 1.0e-2}", "lr: 1.0e-2, diagnostics: {detectors: [update], metrics: [kept]}}")
    first = cell(run_plan(changed(("arms:", KEEP), watched), folder))[0]
    more = KEEP.replace("kept,", "other,").replace("arms:", KEEP)
    told(folder)
    after, status = cell(run_plan(changed(("arms:", more), watched), folder))
    assert status["trained_by"] == first.name and told(folder)["step"] == 0
    assert (after / "scalars.jsonl").read_bytes() == (first / "scalars.jsonl").read_bytes()
    (folder / "held.txt").write_text("something else")
    assert "trained_by" not in cell(run_plan(changed(("arms:", KEEP), watched), folder))[1]
    assert told(folder)["step"] == 3


def test_an_attack_on_other_data_is_made(folder: Path) -> None:
    run_plan(changed(("compute:", ATTACKS)), folder)
    told(folder)
    (folder / "attack.txt").write_text("something else")
    run_plan(changed(("compute:", ATTACKS)), folder)
    assert told(folder) == {"step": 0, "score": 1, "attack": 1}


def test_scores_are_taken_over_where_the_weights_were_dropped(folder: Path) -> None:
    drop = ("compute: {", "compute: {patches: drop, ")
    run_plan(changed(drop), folder)
    told(folder)
    ran = run_plan(changed(drop, ("arms:", KEEP)), folder)
    assert told(folder) == {"step": 3, "score": 2, "attack": 0} and "trained_by" not in cell(ran)[1]


PEEK = """
from pathlib import Path
from unlearn_suite import Objective, ObjectiveSpec, Requirements, hookimpl

class Peek(Objective):
    def requirements(self, shape):
        return Requirements(trainable=shape.select("mlp_out", [0]), reads=0)
    def setup(self, ctx):
        Path("seen.txt").write_text(f"{sorted(ctx.examples)} {sorted(ctx.roles)}")
    def step(self, batch):
        return {}

@hookimpl
def register_objectives(register):
    register(ObjectiveSpec("peek", "look", f"{__name__}:Peek", roles=("forget",), optional_roles=("held", "other")))
"""


def test_a_stage_sees_the_roles_that_it_names(folder: Path) -> None:
    (folder / "peek.py").write_text(PEEK)
    run_plan(changed(("./steps.py", "./peek.py"), ("gradient-ascent, steps: 3", "peek, steps: 0")), folder)
    assert (folder / "seen.txt").read_text() == "['forget', 'held'] ['forget', 'held']"
