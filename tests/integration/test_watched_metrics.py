"""A metric that detectors score while a stage trains, and that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.testing.run_plan import Ran, run_plan

PLAN = """\
plan: 1
name: watched
plugins: [./moody.py]
models: {tiny: {path: model}}
problems:
  - name: words
    data:
      forget: {use: text, with: {path: forget.txt}}
      retain: {use: text, with: {path: retain.txt}}
    metrics:
      - {name: mood, use: moody, data: retain, want: keep}
arms:
  up:
    stages:
      - use: gradient-ascent
        steps: 4
        batch: 2
        lr: 1.0e-2
        diagnostics: {detectors: [update], metrics: [mood], sample_every: 2}
compute: {device: cpu}
"""
# Call 1 is before training, 2 after two steps, 3 at the end, 4 the cell's own scoring.
PLUGIN = """
from pathlib import Path
from unlearn_suite import Metric, MetricSpec, Row, ValueSpec, hookimpl

class Moody(Metric):
    def score(self, model, examples, seed):
        with Path("calls.txt").open("a") as file:
            print(len(examples), file=file)
        if len(Path("calls.txt").read_text().split()) == 2:
            raise ZeroDivisionError("not today")
        scores = model.rolling([e.text for e in examples])
        return [Row(e.id, {"size": one.total}) for e, one in zip(examples, scores)]

@hookimpl
def register_metrics(register):
    register(MetricSpec("moody", "fails once", f"{__name__}:Moody", {"size": ValueSpec("log-probability")}))
"""


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    for role in ("forget", "retain"):
        (tmp_path / f"{role}.txt").write_text("\n\n".join(f"{role} {word} line" for word in ("one", "two", "red")))
    (tmp_path / "moody.py").write_text(PLUGIN)
    return run_plan(PLAN, tmp_path)


def scalars(ran: Ran) -> list[dict[str, Any]]:
    (path,) = ran.folder.glob("cells/*.up.*/scalars.jsonl")
    return [json.loads(line)["scalars"] for line in path.read_text().splitlines()]


def test_a_metric_that_fails_while_training_ends_nothing(ran: Ran) -> None:
    rows = scalars(ran)
    assert ["diag_mood_size" in row for row in rows] == [False] * 4 + [True]
    assert "not scored while training: moody, moody.py:10: metric 'moody' raised ZeroDivisionError" in ran.told
    records = [row["score"] for row in ran.records if row["metric"] == "mood"]
    assert rows[-1]["diag_mood_size"] == pytest.approx(sum(records) / len(records))
