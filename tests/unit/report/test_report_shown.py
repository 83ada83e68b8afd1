"""Tables and curves that a stage left in report.json, on the page."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.engine.stage_report import StageReport
from unlearn_suite.errors import PrerequisiteError
from unlearn_suite.report import write_report

SCRIPT = "<script>alert(1)</script>"


def page_with(made: Any, tell: Callable[[Path], None]) -> str:
    """The page of a run with one trained cell whose stage 0 keeps what `tell` writes into its folder."""
    made.share_base(made.cell("everyday-toxicity", "base", 0), 0)
    cell = made.cell("everyday-toxicity", "probe-directions", 0)
    made.score(cell)
    folder = cell.artifacts / "stage0"
    folder.mkdir(parents=True)
    tell(folder)
    return write_report(made.close()).read_text(encoding="utf-8")


def tell_all(folder: Path) -> None:
    report = StageReport(folder)
    report.table("old", ["x"], [[1]])
    report.table("Probes " + SCRIPT, ["block", SCRIPT], [[6, 0.87654], [10, None], [14, SCRIPT]], note=SCRIPT)
    report.series("AUROC", {"before": [(6, 0.9), (10, 0.8)], SCRIPT: [(6, 0.5), (10, float("nan"))]}, x="block", y="a")
    report.table("old", ["x"], [[2], [3]])


def test_tables_and_curves_are_shown_and_escaped(made, read_page):
    page = page_with(made, tell_all)
    tags = read_page(page)
    assert "<script>" not in page and tags.words.count(SCRIPT) >= 4
    assert re.search(r"<td>6</td>\s*<td>0.877</td>", page) and re.search(r"<td>10</td>\s*<td>–</td>", page)
    assert 'points="57.9' in page or "polyline" in page
    assert "AUROC" in tags.words and "What the objectives tell" in tags.words
    assert page.count("<caption>old</caption>") == 1 and re.search(r"<td>2</td></tr><tr><td>3</td>", page)
    ids = [a["id"] for _, a in tags.seen if "id" in a]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"items": 3}',
        json.dumps({"items": ["x", {"kind": "table"}, {"kind": "table", "columns": 1, "rows": 2}]}),
        json.dumps({"items": [{"kind": "series", "lines": {"a": "b", "c": [[1], ["x", 2], 3]}}, {"kind": "other"}]}),
    ],
)
def test_a_file_that_does_not_fit_the_form_is_left_out(made, content):
    page = page_with(made, lambda folder: (folder / "report.json").write_text(content) and None)
    assert "What the objectives tell" not in page


def test_long_tables_are_cut_and_say_so(made):
    def tell(folder: Path) -> None:
        StageReport(folder).table("long", ["n"], [[i] for i in range(450)])

    page = page_with(made, tell)
    assert "250 more rows are in the file" in page and "<td>199</td>" in page and "<td>200</td>" not in page


def test_a_resumed_stage_keeps_what_it_showed(tmp_path):
    StageReport(tmp_path).table("first", ["a"], [[1]])
    StageReport(tmp_path).table("second", ["a"], [[float("inf")]])
    items = json.loads((tmp_path / "report.json").read_text())["items"]
    assert [item["title"] for item in items] == ["first", "second"] and items[1]["rows"] == [[None]]
    (tmp_path / "report.json").write_text("")
    StageReport(tmp_path).table("third", ["a"], [[1]])
    with pytest.raises(ValueError, match="another length"):
        StageReport(tmp_path).table("bad", ["a", "b"], [[1]])


def test_a_full_disk_is_told_and_leaves_the_last_file(tmp_path, monkeypatch):
    report = StageReport(tmp_path)
    report.table("first", ["a"], [[1]])

    def full(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(PrerequisiteError, match="cannot write a stage's report: No space left") as caught:
        report.table("second", ["a"], [[1]])
    assert caught.value.where == str(tmp_path / "report.json")
    (kept,) = tmp_path.iterdir()
    assert [item["title"] for item in json.loads(kept.read_text())["items"]] == ["first"]
