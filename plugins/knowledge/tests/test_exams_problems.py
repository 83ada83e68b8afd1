"""The exam problems from start to end on a tiny model, as a user runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import parquet

import unlearn_suite_knowledge
from unlearn_suite.cli import main
from unlearn_suite.testing.tiny import save_tiny

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


def test_both_problems_run_to_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path / "model", max_position_embeddings=1024)
    (tmp_path / "plan.yaml").write_text(PLAN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["run", "plan.yaml"])
    told = "".join(capsys.readouterr())
    assert not ended.value.code, told
    page = (tmp_path / "runs/exams/report/index.html").read_text(encoding="utf-8")
    for measure in ("wmdp accuracy", "wmdp-robust worst", "neighbours accuracy", "subject-trained", "subject-cloze"):
        assert measure in page
    # What is asked of mmlu-subject is no text that was trained on; groups are subjects.
    rows = parquet.read_table(tmp_path / "runs/exams/results/records.parquet").to_pylist()
    rows = [row for row in rows if (row["problem"], row["arm"]) == ("mmlu-subject", "rmu")]
    by_entry: dict[str, set[str]] = {}
    for row in rows:
        by_entry.setdefault(row["metric"], set()).add(row["example"])
    assert by_entry["subject"] and not by_entry["subject"] & by_entry["subject-trained"]
    assert {row["group"] for row in rows if row["metric"] == "neighbours"} == {"high_school_biology"}
