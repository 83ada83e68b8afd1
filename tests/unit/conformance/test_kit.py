"""The kit itself: the list of expected failures is strict, skipped is not passed, tests and table say the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from unlearn_suite.cli import main
from unlearn_suite.errors import PLUGIN, PlanError, PlanErrors
from unlearn_suite.testing.conformance import CHECKS, Result, run

Checked = Callable[..., list[Result]]
SHEET = "conformance: 1\n"
BARE = ('    """weight of the retain term"""\n', "")


def expecting(identity: str) -> tuple[str, str]:
    return SHEET, f"{SHEET}objective:\n  turn:\n    expected-failures: {{{identity}: it is a toy}}\n"


def test_an_expected_failure_is_no_failure(checked: Checked):
    first = checked("OPT-DOCS", BARE, expecting("OPT-DOCS"))[0]
    assert (first.outcome, first.ok) == ("expected", True)
    assert first.message.startswith("it is a toy (Options.weight")


def test_an_expected_failure_that_passes_is_one(checked: Checked):
    first = checked("OPT-DOCS", expecting("OPT-DOCS"))[0]
    assert (first.outcome, first.ok) == ("unexpected", False)
    assert "take it out of the expected failures" in first.message


def test_what_is_unavailable_is_skipped_with_its_reason(checked: Checked):
    told = SHEET, f"{SHEET}objective:\n  turn:\n    unavailable: {{OBJ-*: needs a large model}}\n"
    results = [r for r in checked("OBJ-*", told) if r.subject == "objective turn"]
    assert {(r.outcome, r.message) for r in results} == {("skipped", "needs a large model")}


def test_a_wrong_sheet_is_told_with_its_place(checked: Checked):
    with pytest.raises(PlanErrors, match=r"good_plugin\.conformance\.yaml:2:1: unknown key 'objektive'"):
        checked("OPT-DOCS", (SHEET, f"{SHEET}objektive: {{}}\n"))


def test_a_model_that_is_too_shallow_is_told_with_what_to_write(checked: Checked):
    (result,) = checked("OBJ-FINITE", ('"mlp_out", [1]', '"mlp_out", [5]'))
    told = "{conformance: 1, objective: {turn: {cases: [{model: {num_hidden_layers: 8}}]}}}"
    assert result.outcome == "failed" and "block 5 does not exist" in result.message and told in result.message
    assert "into good_plugin.conformance.yaml" in result.message


def test_costs_are_not_compared(checked: Checked):
    timed = (
        "        return super().step(batch)",
        '        return {**super().step(batch), "step_seconds": random.SystemRandom().random()}',
    )
    assert checked("OBJ-SEED", timed)[0].outcome == "passed"
    assert checked("OBJ-SEED", (timed[0], timed[1].replace("step_seconds", "step_size")))[0].outcome == "failed"


def test_costs_of_finish_are_not_compared_either(checked: Checked):
    inside = "class Turn(LossObjective[Options]):\n"
    timed = inside + "    def finish(self):\n        return {'step_seconds': random.SystemRandom().random()}\n\n"
    assert checked("OBJ-SEED", (inside, timed))[0].outcome == "passed"
    assert checked("OBJ-SEED", (inside, timed.replace("step_seconds", "step_size")))[0].outcome == "failed"


def test_a_sheet_that_tells_of_what_the_plugin_does_not_bring(checked: Checked):
    with pytest.raises(PlanErrors, match=r"no objective 'trun' \(did you mean 'turn'\?\)"):
        checked("OPT-DOCS", (SHEET, f"{SHEET}objective:\n  trun:\n    cases: []\n"))


TWO_OF_THEM = (
    '    register(ObjectiveSpec("turn", "turn away"',
    '    register(ObjectiveSpec("again", "the same", f"{__name__}:Turn", config=Options))\n'
    '    register(ObjectiveSpec("turn", "turn away"',
)


def two_processes(failing: bool, calls: list[str]):
    """Stands for `on_processes`: both run here; `failing`: as long as they are given several objectives."""

    def run_here(function, processes, given):
        calls.append("all" if isinstance(given, dict) else given[0].use)
        if failing and isinstance(given, dict):
            raise RuntimeError("one of them has ended")
        return [function(given) for _ in range(processes)]

    return run_here


@pytest.mark.parametrize("failing", [False, True])
def test_all_objectives_share_two_processes_unless_one_brings_them_down(checked: Checked, monkeypatch, failing):
    calls: list[str] = []
    monkeypatch.setattr("unlearn_suite.testing.distributed.on_processes", two_processes(failing, calls))
    results = checked("OBJ-PROCESSES", TWO_OF_THEM)
    assert [(r.subject, r.outcome) for r in results] == [("objective again", "passed"), ("objective turn", "passed")]
    assert calls == (["all", "good_plugin/again", "good_plugin/turn"] if failing else ["all"])


def test_an_unknown_name_or_id():
    with pytest.raises(PlanError, match="did you mean 'knowledge'"):
        list(run("knowlege"))
    with pytest.raises(PlanError, match="there is no check 'OBJ-NONE'"):
        list(run("knowledge", only=["OBJ-NONE"]))


def test_ids_have_their_area_in_front_and_summaries_are_short():
    fronts = {
        "plugin": "LOAD",
        "options": "OPT",
        "objective": "OBJ",
        "dataset": "DATA",
        "metric": "MET",
        "problem": "PROB",
        "attack": "ATT",
    }
    for identity, one in CHECKS.items():
        assert identity.startswith(fronts[one.area] + "-") and len(one.summary) < 100


def test_the_table_and_the_json_agree(checked: Checked, tmp_path, capsys):
    results = checked("OPT-*", BARE)
    arguments = ["plugins", "check", "--plugin", str(tmp_path / "good_plugin.py"), "--only", "OPT-*"]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--json"])
    assert left.value.code == PLUGIN
    assert json.loads(capsys.readouterr().out) == [result.to_json() for result in results]
    with pytest.raises(SystemExit):
        main(arguments)
    table = capsys.readouterr().out
    assert (
        "  FAILED    OPT-DOCS          every option has a docstring\n            Options.weight: no docstring" in table
    )
    assert table.endswith("19 passed, 1 failed\n")


def test_an_authors_pytest_has_one_test_per_check(checked: Checked, tmp_path):
    checked("OPT-DOCS", BARE, expecting("OPT-JSON"))
    (tmp_path / "test_it.py").write_text(
        "from pathlib import Path\nfrom unlearn_suite.testing import conformance\n"
        "here = Path(__file__).parent / 'good_plugin.py'\n"
        "test_kit = conformance.tests('good_plugin.py', files=[here], only=['OPT-*', 'LOAD-META'],"
        " expected_failures={'OPT-STRICT': 'why not'})\n"
    )
    wide = {**os.environ, "COLUMNS": "400"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-q", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=wide)
    assert "test_kit[objective/turn-OPT-DOCS] - Failed: OPT-DOCS of objective turn: Options.weight" in done.stdout
    assert "PASSED test_it.py::test_kit[metric/surprise-OPT-TARGET]" in done.stdout
    assert "test_kit[objective/turn-OPT-JSON] - Failed" in done.stdout  # expected to fail, and passes
    assert "it is a single file" in done.stdout
    assert "11 passed" not in done.stdout and done.returncode == 1
