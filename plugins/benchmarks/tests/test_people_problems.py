"""`stereotypes` and `rwku` from the command line to the report, on a tiny model."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from pyarrow import parquet

from unlearn_suite.cli import main
from unlearn_suite.testing.tiny import save_tiny

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


def test_from_the_plan_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path / "model", max_position_embeddings=512)
    (tmp_path / "plan.yaml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["run", "plan.yaml"])
    told = "".join(capsys.readouterr())
    assert not ended.value.code, told
    page = (tmp_path / "runs/people/report/index.html").read_text(encoding="utf-8")
    for measure in ("crows-pairs first", "stereoset-language lm-score", "icat", "attacks rougeL-recall", "neighbours"):
        assert measure in page
    rows = parquet.read_table(tmp_path / "runs/people/results/records.parquet").to_pylist()
    kinds = {row["group"] for row in rows if row["metric"] == "attacks"}
    assert kinds <= {"prefix injection", "affirmative suffix", "role playing", "incontext learning"} and kinds
    assert {row["group"] for row in rows if row["metric"] == "questions"} == {"Bo Marsh"}
    # ICAT is the authors' formula on the other two: language x min(s, 1 - s) / 0.5
    found = json.loads((tmp_path / "runs/people/results/summary.json").read_text(encoding="utf-8"))["results"]
    for arm in ("base", "npo"):
        means = {one["value"]: one["mean"] for one in found if one["arm"] == arm}
        share = means["stereotype-score"]
        assert means["icat"] == pytest.approx(means["lm-score"] * min(share, 1 - share) / 0.5)
