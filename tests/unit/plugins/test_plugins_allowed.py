"""UNLEARN_SUITE_PLUGINS: only what it names is loaded, and what is left out is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from unlearn_suite.cli import main
from unlearn_suite.errors import SuiteError
from unlearn_suite.plugins import load_catalog

Install = Callable[..., Path]


@pytest.fixture(autouse=True)
def three(install: Install) -> None:
    install("toy-one")
    install("toy-two", "import toy_two_was_imported\n")
    install("toy-three", package="toy_three")


def statuses() -> dict[str, str]:
    return {f"{r.distribution}:{r.entry_point}": r.status for r in load_catalog().reports}


def test_only_what_is_named_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARN_SUITE_PLUGINS", "toy_one, knowledge")
    found = statuses()
    assert (found["toy-one:main"], found["toy-two:main"], found["toy-three:main"]) == ("ok", "off", "off")
    assert found["unlearn-suite:builtin"] == found["unlearn-suite:knowledge"] == "ok"
    assert found["unlearn-suite:toxicity"] == "off"


def test_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARN_SUITE_PLUGINS", "")
    assert [name for name, status in statuses().items() if status == "ok"] == ["unlearn-suite:builtin"]


def test_a_name_that_nothing_has_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARN_SUITE_PLUGINS", "toy-one,toy-four")
    (report,) = [r for r in load_catalog().reports if r.distribution == "toy-four"]
    assert report.status == "broken" and "UNLEARN_SUITE_PLUGINS names it" in report.message
    assert report.action == "pip install toy-four, or correct UNLEARN_SUITE_PLUGINS"


def test_what_is_left_out_is_no_riddle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARN_SUITE_PLUGINS", "toy-one")
    with pytest.raises(SuiteError) as caught:
        load_catalog().find("objective", "toy-three")
    assert "which is off: UNLEARN_SUITE_PLUGINS does not name it" in caught.value.message


def test_the_list_shows_times(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["plugins", "list", "--timing"], ["plugins", "list", "--json"]):
        with pytest.raises(SystemExit):
            main(arguments)
    table, _, records = capsys.readouterr().out.partition("[\n")
    assert all(line.endswith(" s") for line in table.splitlines() if line.startswith(("ok", "broken")))
    assert all(record["seconds"] >= 0 for record in json.loads("[" + records))
