"""The one place where a failure becomes words on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence

import click
from click.exceptions import NoArgsIsHelpError

from ..errors import BUG, INTERRUPTED, OK, USAGE, GateError, PlanError, PlanErrors, PrerequisiteError, SuiteError
from .options import errors_json, print_json

_DISK = {
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied",
    errno.ENOTDIR: "a file stands where a folder is due",
    errno.EEXIST: "a file stands where a folder is due",
}


def run_guarded(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a click command; its return value, or the exit code of what went wrong.

    With --json a failure is told on stdout as well, as {"errors": [...]}.
    """
    debug, as_json = "--debug" in arguments, "--json" in arguments
    try:
        code = command.main(args=list(arguments), prog_name="unlearn-suite", standalone_mode=False)
        return code if isinstance(code, int) else OK
    except click.ClickException as error:
        return _usage(error, as_json)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; the same command continues", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`| head`); without this Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except Exception as error:
        if debug:
            traceback.print_exc()
        found = as_suite_error(error)
        if as_json and not isinstance(error, GateError):  # that comes after the results, which have it
            print_json({"errors": errors_json(found)})
        return tell(found)


def _usage(error: click.ClickException, as_json: bool) -> int:
    if isinstance(error, NoArgsIsHelpError):  # a group without its command: the help, which is no error message
        click.echo(error.format_message(), err=True)
        return USAGE
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context is not None else ""
    found = PlanError(error.format_message(), code="usage", hint=hint)
    if as_json:
        print_json({"errors": errors_json(found)})
    return tell(found)


def tell(error: SuiteError) -> int:
    """Print an error; its exit code."""
    if isinstance(error, PlanErrors):
        for one in error.errors:
            click.echo(str(one), err=True)
        count = len(error.errors)
        click.echo(f"error: {count} {'thing is' if count == 1 else 'things are'} wrong in the plan", err=True)
        return error.exit_code
    place = f"{error.where}: " if error.where else ""
    click.echo(f"error: {place}{error.message}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)
    return error.exit_code


def as_suite_error(error: Exception) -> SuiteError:
    """The error itself, the machine's fault in its own words, or our bug."""
    if isinstance(error, SuiteError):
        return error
    from ..plugins.machine import used_up

    if found := used_up(error):
        return found
    if isinstance(error, OSError) and error.errno in _DISK:
        hint = "name another place, then run the same command again"
        return PrerequisiteError(_DISK[error.errno], code="disk", where=str(error.filename or ""), hint=hint)
    bug = SuiteError(
        f"this is a bug in unlearn-suite: {type(error).__name__}: {error}",
        code="bug",
        hint="report it with the output of the same command with --debug",
    )
    assert bug.exit_code == BUG
    return bug
