"""Failures become one error, its hint and the right exit code; a traceback only with --debug."""

from __future__ import annotations

import errno
import json

import click
import pytest

from unlearn_suite.cli import cli
from unlearn_suite.cli.exits import run_guarded
from unlearn_suite.cli.options import debug_option, json_option
from unlearn_suite.errors import GateError, PlanError, PlanErrors, PluginError, PrerequisiteError, TrainingError


def run(error: BaseException | int | None, *arguments: str) -> int:
    @click.command()
    @click.option("--size", type=int)
    @debug_option
    def command(size: int | None) -> int | None:
        if isinstance(error, BaseException):
            raise error
        return error

    return run_guarded(command, arguments)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PlanError("m", code="c"), 2),
        (PluginError("m", code="c"), 3),
        (PrerequisiteError("m", code="c"), 4),
        (TrainingError("m", code="c"), 1),
        (GateError("m", code="c"), 5),
        (ValueError("m"), 70),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 4),
        (OSError(errno.EACCES, "Permission denied", "x"), 4),
        (MemoryError(), 4),
        (OSError(errno.EIO, "Input/output error", "x"), 70),
        (None, 0),
        (1, 1),
    ],
)
def test_exit_codes(error: BaseException | int | None, code: int) -> None:
    assert run(error) == code


def test_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    run(PrerequisiteError("the model does not fit", code="memory", where="cell x", hint="use bf16"))
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: cell x: the model does not fit\n  hint: use bf16\n")


def test_all_errors_of_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    run(
        PlanErrors(
            [PlanError("a", code="c", where="p.yaml:1:2", hint="h"), PlanError("b", code="c", where="p.yaml:3:4")]
        )
    )
    assert capsys.readouterr().err == "p.yaml:1:2: a (h)\np.yaml:3:4: b\nerror: 2 things are wrong in the plan\n"


def test_a_bug_has_no_traceback_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    run(ValueError("oops"))
    quiet = capsys.readouterr().err
    assert quiet.startswith("error: this is a bug in unlearn-suite: ValueError: oops\n  hint: ")
    assert "Traceback" not in quiet
    run(ValueError("oops"), "--debug")
    assert "Traceback" in capsys.readouterr().err


def test_the_full_disk_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    run(OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    assert capsys.readouterr().err.startswith("error: /data/x: the disk is full\n  hint: ")


@pytest.mark.parametrize("arguments", [["--sizee", "3"], ["--size", "three"], ["more"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(None, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "  hint: see `unlearn-suite --help`" in err


def test_a_failure_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with_json = json_option(click.command()(lambda as_json: click.get_current_context().fail("no")))
    assert run_guarded(with_json, ["--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {
        "errors": [{"where": "", "message": "no", "hint": "see `unlearn-suite --help`", "code": "usage"}]
    }
    assert main_of("plugins", "show", "npoo", "--json") == 2
    out, err = capsys.readouterr()
    (error,) = json.loads(out)["errors"]
    assert (error["code"], error["hint"]) == ("plugin-unknown", "did you mean 'npo'?") and "error: nothing" in err
    assert main_of("run", "none.yaml", "--json") == 2
    assert json.loads(capsys.readouterr().out)["errors"][0]["where"] == "none.yaml"


def main_of(*arguments: str) -> int:
    return run_guarded(cli, arguments)
