"""Signs of failure on the page, in the terminal and in summary.json: judges apart, groups left behind."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from unlearn_suite.report import write_report
from unlearn_suite.report.alarms import signs
from unlearn_suite.report.load import RunData
from unlearn_suite.report.summary import summarize, to_json
from unlearn_suite.report.tables import print_table

from . import conftest

PROBLEM = "everyday-toxicity"
ITEMS = 24


@pytest.fixture
def write(made: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A run of two judges of toxicity and of facts in four groups; `fallen`: how many of a group are lost."""

    def build(toxic: tuple[float, float], fallen: dict[int, int], want: str = "keep", better: str = "higher") -> Path:
        problems = copy.deepcopy(conftest.PROBLEMS)
        toxicity, keep = problems[PROBLEM]["metrics"][:2]
        toxicity["values"] = {
            "mean": {**conftest.FRACTION, "better": "lower", "second": "second-mean"},
            "second-mean": {**conftest.FRACTION, "better": "lower", "second": ""},
        }
        toxicity["show"] = ["mean"]
        keep["want"], keep["values"]["exact"]["better"] = want, better
        monkeypatch.setitem(conftest.PROBLEMS, PROBLEM, problems[PROBLEM])
        good = 1.0 if better == "higher" else 0.0
        for arm in ("base", "probe-directions"):
            folder = made.cell(PROBLEM, arm, 0)
            after = arm != "base"
            first, second = toxic if after else (0.6, 0.5)
            rows = [
                {"id": f"p{i}", "unit": f"p{i}", "values": {"mean": first, "second-mean": second}} for i in range(ITEMS)
            ]
            folder.write_scores("toxicity", rows)
            facts = []
            for i in range(ITEMS):
                lost = after and i // 4 < fallen.get(i % 4, 0)
                values = {"exact": 1 - good if lost else good, "nll": 1.0, "p": 0.5}
                facts.append({"id": f"f{i}", "unit": f"f{i}", "group": f"group {i % 4}", "values": values})
            folder.write_scores("keep", facts)
            if not after:
                for name in ("toxicity", "keep"):
                    entry = next(e for e in folder.cell["metrics"] if e["name"] == name)
                    folder.publish_shared(name, entry["key"])
        return made.close()

    return build


def found(path: Path) -> list[tuple[str, str, float]]:
    (problem,) = summarize(RunData(path))
    return [(sign.metric, sign.value, sign.reading) for sign in signs(problem)]


def test_judges_that_disagree_stand_on_the_page_in_the_terminal_and_in_the_summary(write, read_page):
    path = write((0.2, 0.45), {})
    assert found(path) == [("toxicity", "mean", pytest.approx(0.35))]
    words = read_page(write_report(path).read_text()).words
    assert "Signs of failure" in words and "changed by −0.400, and by −0.050 as a second judge sees it" in words
    console = Console(record=True, width=200)
    print_table(path, console)
    assert "⚠ probe-directions: toxicity mean changed by −0.400" in console.export_text()
    run = RunData(path)
    (line,) = json.loads(json.dumps(to_json(run, summarize(run))))["alarms"]
    assert (line["problem"], line["arm"], line["level"]) == (PROBLEM, "probe-directions", 0.15)


@pytest.mark.parametrize("toxic", [(0.2, 0.2), (0.6, 0.5), (0.44, 0.48)])
def test_judges_that_agree_are_no_sign(toxic, write, read_page):
    path = write(toxic, {})
    assert found(path) == []
    assert "Signs of failure" not in read_page(write_report(path).read_text()).words


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_group_that_falls_behind_the_rest(better, write, read_page):
    path = write((0.6, 0.5), {2: 6}, better=better)  # all six of one group, none of the other eighteen
    assert found(path) == [("keep", "exact", pytest.approx(1.0))]
    text = "of 'group 2' fell by at least 1.000 more than that of the rest (alarm above 0.03)"
    assert text in read_page(write_report(path).read_text()).words


@pytest.mark.parametrize(
    ("fallen", "want"),
    [
        ({}, "keep"),
        (dict.fromkeys(range(4), 6), "keep"),  # all fell alike
        ({1: 1}, "keep"),  # one of six: the interval reaches none
        ({2: 6}, "lower"),  # was to be forgotten
    ],
)
def test_no_group_is_behind(fallen, want, write):
    assert found(write((0.6, 0.5), fallen, want)) == []


def test_a_group_of_four_tells_nothing(write, monkeypatch):
    monkeypatch.setitem(globals(), "ITEMS", 16)  # four of each group
    assert found(write((0.6, 0.5), {2: 4})) == []
