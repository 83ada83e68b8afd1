"""A run with a sweep, failure detectors and a collapse guard: what is in the console, on disk and on the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn_suite.testing.tiny import save_tiny

PLAN = """
plan: 1
name: tiny
models: {tiny: {path: model}}
problems:
  - name: words
    summary: forget animals, keep weather
    data:
      forget: {use: jsonl, with: {path: animals.jsonl}}
      retain: {use: jsonl, with: {path: weather.jsonl}}
    metrics:
      - {name: forget, use: perplexity, data: forget, want: higher, show: [perplexity]}
      - {name: rare, use: perplexity, data: forget, want: lower, show: [perplexity]}
      - {name: keep, use: perplexity, data: retain, want: keep, show: [perplexity]}
      - name: writing
        use: fluency
        data: forget
        want: keep
        show: [perplexity, repetition]
        with: {n: 2, max_new_tokens: 6}
arms:
  base: {stages: []}
  rmu:
    stages:
      - use: cosine-rmu
        with: {block: 2, meta: none, retain_weight: 1}
        steps: 8
        lr: 2.0e-2
        batch: 4
        diagnostics:
          detectors: [norm-ratio, retain-kl, update, own-output, quantisation]
          every: 4
          sample_every: 3
          examples: 4
          metrics: [keep, writing]
        stop: {retain_kl: 0.2, every: 2}
    sweep: {0.lr: [1e-6, 5e-2]}
  twice:
    stages:
      - {use: cosine-rmu, with: {block: 2, meta: none, retain_weight: 1}, steps: 3, lr: 2.0e-2, batch: 4}
      - use: cosine-rmu
        with: {block: 2, meta: none, retain_weight: 1}
        steps: 3
        lr: 2.0e-2
        batch: 4
        lora: {rank: 2}
        diagnostics: {detectors: [probe], metrics: [keep, writing], sample_every: 1}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("watched")
    save_tiny(folder / "model")
    for name in ("animals", "weather"):
        rows = [json.dumps({"text": f"the {name} number {i} are here"}) for i in range(8)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    (folder / "plan.yaml").write_text(PLAN)
    command = [str(Path(sys.executable).parent / "unlearn-suite"), "run", "plan.yaml"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "tiny", done.stdout + done.stderr


def cell(run_path: Path, arm: str) -> Path:
    (found,) = (run_path / "cells").glob(f"*.{arm}.*")
    return found


def test_a_collapse_is_in_the_console_the_status_the_scalars_and_on_the_page(run):
    path, said = run
    ruined = cell(path, "rmu.lr-0.05")
    status = json.loads((ruined / "status.json").read_text())
    assert status["state"] == "done" and status["collapse"]["0"]["stopped_after"] < 8
    assert "the stage stopped after step" in " ".join(said.split())
    rows = [json.loads(line)["scalars"] for line in (ruined / "scalars.jsonl").read_text().splitlines()]
    assert max(row.get("guard_retain_kl", 0) for row in rows) > 0.2
    assert rows[-1]["guard_kept_step"] == status["collapse"]["0"]["kept"] and "diag_own_empty" in rows[-1]
    page = (path / "report" / "index.html").read_text()
    assert "The stage stopped after step" in page and "Failure detectors" in page
    assert "Measured every 4 steps (what is written or scored: every 3) on fixed text" in page


@pytest.mark.parametrize("arm", ["rmu.lr-0.05", "rmu.lr-1e-06", "twice"])
def test_metrics_that_are_watched_end_with_what_the_cell_scores(run, arm):
    """`writing` is read by the published model, which takes the place of the trained one for it."""
    path, _ = run
    rows = [json.loads(line)["scalars"] for line in (cell(path, arm) / "scalars.jsonl").read_text().splitlines()]
    results = json.loads((path / "results" / "summary.json").read_text())["results"]
    found = {(r["metric"], r["value"]): r for r in results if r["arm"] == arm}
    for metric, value in (("keep", "perplexity"), ("writing", "perplexity"), ("writing", "repetition")):
        assert rows[-1][f"diag_{metric}_{value}"] == pytest.approx(found[metric, value]["mean"], rel=1e-6)
    if arm == "twice":
        assert abs(found["writing", "perplexity"]["change"]["mean"]) > 0.1
        assert ["diag_writing_perplexity" in row for row in rows] == [*[False] * 3, True, True, False, True]


def test_a_calm_point_of_the_sweep_does_all_its_steps(run):
    path, said = run
    assert "rounding the weights to 4 bits would undo the training" in " ".join(said.split())
    calm = cell(path, "rmu.lr-1e-06")
    assert "collapse" not in json.loads((calm / "status.json").read_text())
    rows = [json.loads(line)["scalars"] for line in (calm / "scalars.jsonl").read_text().splitlines()]
    assert len(rows) == 9 and rows[-1]["guard_kept_step"] == 8
    assert [step for step, row in enumerate(rows) if "diag_own_entropy" in row] == [2, 5, 8]
    assert [step for step, row in enumerate(rows) if "diag_bin_move" in row] == [3, 7]
    summary = json.loads((path / "results" / "summary.json").read_text())
    assert {score["family"] for score in summary["scores"]} == {"rmu", ""} and len(summary["scores"]) == 3
    left_out = {item["measure"] for score in summary["scores"] for item in score["left_out"]}
    assert left_out == {"forget perplexity"}, "a value to be raised needs a highest value"
    page = (path / "report" / "index.html").read_text()
    assert "Unified score" in page and "Trade-off: words" in page
