"""The cost table: what stages noted, parts of stages told as such, and nothing made up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unlearn_suite.report import write_report
from unlearn_suite.report.cost import cost_table
from unlearn_suite.report.load import RunData

SCRIPT = "<script>alert(1)</script>"


def note(folder: Any, **fields: Any) -> None:
    """Change what the first stage noted."""
    folder.write_cost(0, {**folder.cost["0"], **fields})


def only_row(made: Any) -> Any:
    table = cost_table(RunData(made.close()).cells)
    assert table is not None
    (row,) = table.rows
    return row


def test_the_page_shows_time_rate_work_and_memory(page: str) -> None:
    part = page[page.index("Cost of training</h3>") : page.index("<h3>Versions")]
    words = " ".join(re.sub(r"<[^>]+>", " ", part).split())
    assert "cosine-rmu 0 1 min 33 s 1,536 24.00 0.300 TFLOP/s 1.45 GB setup 1.10 GB, finish 1.30 GB" in words
    assert "On cpu, float32." in words and "interpreter, libraries and model included" in words


def test_every_trained_cell_has_a_row_and_no_other(run_path: Path) -> None:
    run = RunData(run_path)
    table = cost_table(run.cells)
    assert table is not None
    assert [row.cell.name for row in table.rows] == [
        c.name for c in run.cells if not c.is_base and (c.folder.path / "cost.json").exists()
    ]


def test_a_resumed_stage_is_told_as_a_part(made: Any) -> None:
    folder = made.cell("everyday-knowledge", "cosine-rmu", 0)
    made.train(folder)
    note(folder, first_step=40, steps=20, utilisation=0.413)
    row = only_row(made)
    assert row.part == "steps 41 to 60 of 60"
    assert row.speed.endswith("TFLOP/s, 41 % of peak")


def test_training_that_was_taken_over_is_told_as_anothers(made: Any) -> None:
    folder = made.cell("everyday-knowledge", "cosine-rmu", 0)
    made.train(folder)
    folder.set_status(trained_by="everyday-knowledge.smol.cosine-rmu.s0.0123456789")
    assert only_row(made).part == "as everyday-knowledge.smol.cosine-rmu.s0.0123456789, not again"


def test_numbers_that_are_missing_stay_missing(made: Any) -> None:
    folder = made.cell("everyday-knowledge", "cosine-rmu", 0)
    made.train(folder)
    note(folder, flops=None, tokens_per_second=None, peak_bytes={}, seconds=None)
    row = only_row(made)
    assert (row.work, row.speed, row.rate, row.peak, row.other_peaks, row.time) == ("–", "", "–", "–", "", "–")


def test_a_damaged_or_foreign_file_gives_no_row(made: Any, read_page: Callable[[str], Any]) -> None:
    for arm, text in (("cosine-rmu", "{"), ("probe-directions", "[1]"), ("gradient-ascent", '{"0": 3, "x": {}}')):
        folder = made.cell("everyday-knowledge", arm, 0)
        (folder.path / "cost.json").write_text(text)
    path = made.close()
    assert cost_table(RunData(path).cells) is None
    assert "Cost of training" not in read_page(write_report(path).read_text(encoding="utf-8")).words


def test_names_are_escaped(made: Any) -> None:
    folder = made.cell("everyday-knowledge", "cosine-rmu", 0)
    made.train(folder)
    note(folder, device=SCRIPT, peak_bytes={"train": 1e9, SCRIPT: 1e9})
    page = write_report(made.close()).read_text(encoding="utf-8")
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") == 2


def test_the_summary_holds_the_cost(run_path: Path) -> None:
    from unlearn_suite.report.summary import write_summary

    cells = json.loads(write_summary(run_path).read_text(encoding="utf-8"))["cells"]
    assert {c["arm"]: c["cost"] for c in cells}["base"] is None
    assert all(c["cost"]["0"]["tokens"] for c in cells if c["arm"] == "cosine-rmu")
