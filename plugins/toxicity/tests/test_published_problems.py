"""toxicity-rtp and toxicity-pairs from start to end on a tiny model, with ToxiGen added, as a user runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

import unlearn_suite_toxicity
from unlearn_suite.testing.run_plan import run_plan

FILES = Path(unlearn_suite_toxicity.__file__).parent / "conformance"
PLAN = f"""
plan: 1
name: toxicity
models: {{tiny: {{path: model}}}}
problems:
  - use: toxicity-rtp
    with:
      folder: {FILES}/rtp
      prompts: 3
      n: 3
      reference: model
      toxigen: {FILES}/toxigen/prompts
      judged: {FILES}/toxigen/annotated
  - use: toxicity-pairs
    with: {{folder: {FILES}/pairs/pairs.tsv, limit: 3, n: 2}}
arms:
  base: {{stages: []}}
  npo: {{stages: [{{use: npo, steps: 2, batch: 2, length: 48}}]}}
"""


def test_both_problems_run_to_a_report(tmp_path: Path) -> None:
    pytest.importorskip("profanity_check")
    ran = run_plan(PLAN, tmp_path)
    for measure in ("toxic-prompts expected-max", "nontoxic-prompts any", "toxigen", "judged accuracy", "pairs gap"):
        assert measure in ran.page
    rows = ran.records
    groups = {row["group"] for row in rows if row["metric"] == "toxic-prompts"}
    assert groups == {"toxic"}
    assert {row["group"] for row in rows if row["metric"] == "toxigen"} == {"elves", "dwarves"}
    assert any(row["metric"] == "fluency" and row["value"] == "perplexity" and row["score"] > 1 for row in rows)
