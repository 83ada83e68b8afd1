"""The plots of the results are those of the tables beside them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PAGE = (RESULTS / "paper-in-small.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plots() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plot_paper", RESULTS / "plot_paper.py")
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pictures_are_drawn_from_the_page_as_it_is(plots):
    """Run docs/results/plot_paper.py when this fails."""
    for name, text in plots.draw(PAGE).items():
        assert (RESULTS / "plots" / name).read_text(encoding="utf-8") == text, name
        assert f"](plots/{name})" in PAGE
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"


def test_tables_are_read_with_their_intervals(plots):
    rows = ("| a | U | n |", "| --- | ---: | --- |", "| **x** | **.5 (-.1 to 1)** | +19 % (9 to 31) |", "| y | 0 | |")
    page = "\n".join(("# P", "", "## One", "", *rows, "", "## Two", ""))
    (table,) = plots.tables(page, "## One")
    assert [row[""] for row in table] == ["x", "y"]
    assert plots.value(table[0]["U"]) == plots.Value(0.5, -0.1, 1.0)
    assert plots.value(table[0]["n"]) == plots.Value(19, 9, 31)
    assert plots.value(table[1]["U"]) == plots.Value(0, 0, 0) and plots.value(table[1]["n"]) is None
    assert plots.tables(page, "## Two") == []


def test_the_first_table_says_what_the_sections_say(plots):
    (first, *_) = plots.tables(PAGE, plots.TITLE)
    for column, heading in plots.PROBLEMS.items():
        (table, *_) = plots.tables(PAGE, heading)
        section = {row[""].split(" (")[0]: plots.value(row["U"]) for row in table}
        for row in first:
            assert plots.value(row[column]) == section[row[""]], (column, row[""])
