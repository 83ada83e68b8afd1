"""The exam problems from start to end on a tiny model, as a user runs them."""

from __future__ import annotations

from pathlib import Path

import unlearn_suite_knowledge
from unlearn_suite.testing.run_plan import run_plan

FILES = Path(unlearn_suite_knowledge.__file__).parent / "conformance"
PLAN = f"""
plan: 1
name: exams
models: {{tiny: {{path: model}}}}
problems:
  - use: wmdp-cyber
    with: {{corpora: {FILES}/corpora, questions: {FILES}/wmdp, mmlu: {FILES}/mmlu, limit: 3}}
  - use: mmlu-subject
    with: {{folder: {FILES}/mmlu, subject: college_biology, limit: 3}}
arms:
  base: {{stages: []}}
  rmu: {{stages: [{{use: cosine-rmu, with: {{inner_loss: rep}}, steps: 2, batch: 2, length: 64}}]}}
expect:
  - {{problem: wmdp-cyber, arm: rmu, metric: wmdp, value: p-correct, above: 0}}
  - {{problem: mmlu-subject, arm: rmu, metric: subject-robust, value: worst, below: 1.1}}
"""


def test_both_problems_run_to_a_report(tmp_path: Path) -> None:
    ran = run_plan(PLAN, tmp_path, max_position_embeddings=1024)
    for measure in ("wmdp accuracy", "wmdp-robust worst", "neighbours accuracy", "subject-trained", "subject-cloze"):
        assert measure in ran.page
    # What is asked of mmlu-subject is no text that was trained on; groups are subjects.
    rows = [row for row in ran.records if (row["problem"], row["arm"]) == ("mmlu-subject", "rmu")]
    by_entry: dict[str, set[str]] = {}
    for row in rows:
        by_entry.setdefault(row["metric"], set()).add(row["example"])
    assert by_entry["subject"] and not by_entry["subject"] & by_entry["subject-trained"]
    assert {row["group"] for row in rows if row["metric"] == "neighbours"} == {"high_school_biology"}
