"""The smoke test that plugins' tests use: a plan beside a tiny model, with all that it printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlearn_suite.testing.run_plan import run_plan

PLAN = """\
plan: 1
models: {tiny: {path: ../deep/model}}
problems:
  - name: words
    data: {texts: {use: text, with: {path: words.txt}}}
    metrics: [{use: perplexity, data: texts}]
arms: {base: {stages: []}}
"""


def test_a_plan_file_runs_elsewhere_with_what_lies_beside_it(tmp_path: Path) -> None:
    plans, elsewhere = tmp_path / "plans", tmp_path / "elsewhere"
    plans.mkdir()
    elsewhere.mkdir()
    (plans / "small.yaml").write_text(PLAN)
    (plans / "words.txt").write_text("one line\n\nanother\n")
    before = Path.cwd()
    ran = run_plan(plans / "small.yaml", elsewhere, num_hidden_layers=1)
    assert Path.cwd() == before and {path.name for path in tmp_path.iterdir()} == {"plans", "elsewhere"}
    assert ran.folder == elsewhere / "runs/small" and (elsewhere / "deep/model/config.json").is_file()
    assert "perplexity" in ran.page and "words on tiny" in ran.told
    assert {row["example"] for row in ran.records} == {"words:1", "words:3"}
    assert {one["metric"] for one in ran.results} == {"perplexity"}


def test_another_exit_code_is_told_with_all_that_was_printed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"ended with 2, not 0:\n[^$]*words\.txt"):
        run_plan(PLAN, tmp_path, num_hidden_layers=1)
    assert "words.txt" in run_plan(PLAN, tmp_path, code=2).told
