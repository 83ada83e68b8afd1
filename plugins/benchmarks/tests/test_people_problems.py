"""`stereotypes` and `rwku` from the command line to the report, on a tiny model."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from unlearn_suite.testing.run_plan import run_plan

FILES = files("unlearn_suite_benchmarks") / "conformance"
PLAN = f"""
plan: 1
name: people
models: {{tiny: {{path: model}}}}
problems:
  - use: stereotypes
    with: {{crows_pairs: {FILES}/stereotypes, stereoset: {FILES}/stereotypes/dev.json, limit: 4}}
  - use: rwku
    with: {{folder: {FILES}/rwku, people: [Bo Marsh], corpus: [passages, forget-level2], limit: 2}}
arms:
  base: {{stages: []}}
  npo: {{stages: [{{use: npo, steps: 2, batch: 2, length: 48}}]}}
"""


def test_from_the_plan_to_the_report(tmp_path: Path) -> None:
    ran = run_plan(PLAN, tmp_path, max_position_embeddings=512)
    for measure in ("crows-pairs first", "stereoset-language lm-score", "icat", "attacks rougeL-recall", "neighbours"):
        assert measure in ran.page
    kinds = {row["group"] for row in ran.records if row["metric"] == "attacks"}
    assert kinds <= {"prefix injection", "affirmative suffix", "role playing", "incontext learning"} and kinds
    assert {row["group"] for row in ran.records if row["metric"] == "questions"} == {"Bo Marsh"}
    # ICAT is the authors' formula on the other two: language x min(s, 1 - s) / 0.5
    for arm in ("base", "npo"):
        means = {one["value"]: one["mean"] for one in ran.results if one["arm"] == arm}
        share = means["stereotype-score"]
        assert means["icat"] == pytest.approx(means["lm-score"] * min(share, 1 - share) / 0.5)
