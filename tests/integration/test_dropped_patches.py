"""`compute.patches: drop`: a sweep that leaves scores and no weights, and the way back to them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch
from safetensors.torch import load_file

from unlearn_suite.cli import main
from unlearn_suite.testing.run_plan import run_plan

PLAN = """\
plan: 1
name: sweep
models: {tiny: {path: model}}
problems:
  - name: words
    data:
      forget: {use: text, with: {path: words.txt}}
      attack: {use: text, with: {path: words.txt}}
    metrics: [{use: perplexity, data: forget, want: higher}]
arms:
  base: {stages: []}
  ascent: {stages: [{use: gradient-ascent, steps: 3, batch: 2, lr: 1.0e-3}]}
attacks: [{use: quantise}]
compute: {device: cpu, patches: drop}
"""


def cell(folder: Path, arm: str) -> Path:
    (found,) = (folder / "cells").glob(f"*.{arm}.*")
    return found


def ended(words: list[str], folder: Path) -> tuple[int, str]:
    """The exit code, and all that was printed."""
    printed = io.StringIO()
    code = 0
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main(words)
        except SystemExit as left:
            code = int(left.code or 0)
    return code, printed.getvalue()


def test_dropped_weights_are_made_again_when_they_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("one line\n\nanother\n\na third\n")
    kept = run_plan(PLAN.replace("drop", "keep").replace("sweep", "whole"), tmp_path, num_hidden_layers=1)
    dropped = run_plan(PLAN, tmp_path)
    assert dropped.results == kept.results
    assert not list(dropped.folder.rglob("*.safetensors"))

    assert "nothing to do" in run_plan(PLAN, tmp_path).told
    code, told = ended(["export", str(cell(dropped.folder, "ascent")), "--to", "out"], tmp_path)
    assert code == 2 and "were dropped" in told and "patches: keep" in told

    (tmp_path / "plan.yaml").write_text(PLAN.replace("drop", "keep"))
    assert "pending" in ended(["run", "plan.yaml", "--dry-run"], tmp_path)[1]
    again = run_plan(PLAN.replace("drop", "keep"), tmp_path)
    assert "2 of 2 cells done" in again.told and again.results == kept.results
    first, second = (load_file(cell(ran.folder, "ascent") / "patch.safetensors") for ran in (kept, again))
    assert first and first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert "nothing to do" in run_plan(PLAN.replace("drop", "keep"), tmp_path).told
