"""One cell in this process: its state on disk is right whatever happens, and every end has a reason."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from ..errors import BUG, SuiteError
from ..plugins.machine import used_up
from ..study import Cell
from .contracts import CellStore, Execute, Notifier, Outcome, RunStore
from .progress import Progress


def is_done(cell: Cell, cell_dir: CellStore) -> bool:
    """True when the cell is finished and every file of its result is there.

    A patch that was dropped is missing as soon as the plan says that patches are kept.
    """
    status = cell_dir.status
    wanted = status.get("dropped") and cell.compute.get("patches") != "drop"
    return status.get("state") == "done" and not wanted and not cell_dir.missing()


def run_cell(
    cell: Cell, run: RunStore, execute: Execute, catalog: Notifier | None, progress: Progress, debug: bool = False
) -> Outcome:
    """Run or resume one cell. Raises nothing but what cannot be written down (and a second interrupt's echo)."""
    cell_dir = run.cell_dir(cell)
    started = time.monotonic()
    progress.begin_cell(cell)
    try:
        with cell_dir.lock():
            outcome = _run_locked(cell, cell_dir, run, execute, catalog, progress, debug)
    except SuiteError as error:  # locked by another process, or the folder cannot be written
        outcome = Outcome(cell, "failed", as_json(error))
    progress.end_cell(cell, outcome.state, time.monotonic() - started, outcome.message)
    return outcome


def _run_locked(
    cell: Cell,
    cell_dir: CellStore,
    run: RunStore,
    execute: Execute,
    catalog: Notifier | None,
    progress: Progress,
    debug: bool,
) -> Outcome:
    if is_done(cell, cell_dir):  # finished by another process since the caller looked
        return Outcome(cell, "done")
    before = cell_dir.status.get("state", "pending")
    cell_dir.set_status(
        state="running", started=_now(), ended=None, error=None, pid=os.getpid(), files=[], dropped=False
    )
    run.event("cell_start", cell=cell.id, folder=cell.folder, before=before)

    def work() -> None:
        _notify(progress, catalog, "on_cell_start", cell=cell.to_json())
        execute(cell, cell_dir, catalog, run, progress)

    outcome = _attempt(cell, cell_dir, work, progress, debug)
    files = cell_dir.products() if outcome.state == "done" else []
    try:
        status = cell_dir.set_status(state=outcome.state, ended=_now(), error=outcome.error, files=files)
        run.event("cell_end", cell=cell.id, folder=cell.folder, state=outcome.state, error=outcome.error)
    except SuiteError as error:  # a disk so full that the end cannot be noted; the cell will be resumed
        progress.warn(f"the end of {cell.folder} could not be noted: {error}")
        return outcome if outcome.error else Outcome(cell, "failed", as_json(error))
    _notify(progress, catalog, "on_cell_end", cell=cell.to_json(), status=status)
    return outcome


def _attempt(cell: Cell, cell_dir: CellStore, work: Callable[[], None], progress: Progress, debug: bool) -> Outcome:
    try:
        work()
    except KeyboardInterrupt:
        return Outcome(cell, "interrupted")
    except (Exception, SystemExit) as error:  # SystemExit: a plugin that calls exit() must not end the run
        text = traceback.format_exc()
        found = as_suite_error(error)
        if found is None:
            found = _bug(error, cell_dir, text)
        elif error.__cause__ is not None or found is not error:
            _keep(cell_dir, text)
        if debug:
            progress.say(text)
        return Outcome(cell, "failed", as_json(found))
    with suppress(OSError):
        (cell_dir.path / "error.txt").unlink(missing_ok=True)
    return Outcome(cell, "done")


def as_suite_error(error: BaseException) -> SuiteError | None:
    """`error` itself, or what a full disk or exhausted memory means to the user; None for a bug."""
    return error if isinstance(error, SuiteError) else used_up(error)


def as_json(error: SuiteError) -> dict[str, Any]:
    """The `error` of a status.json."""
    return {
        "code": error.code,
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
        "exit": error.exit_code,
    }


def _bug(error: BaseException, cell_dir: CellStore, text: str) -> SuiteError:
    path = _keep(cell_dir, text)
    last = str(error).strip().splitlines()
    what = type(error).__name__ + (f": {last[0]}" if last else "")
    bug = SuiteError(f"unexpected error, {what}", code="bug", hint=f"please report it with {path}")
    assert bug.exit_code == BUG
    return bug


def _keep(cell_dir: CellStore, text: str) -> str:
    """Keep a traceback; on a full disk it is lost, which must not hide the error itself."""
    try:
        return str(cell_dir.write_error(text))
    except SuiteError:
        return "its traceback (use --debug)"


def _notify(progress: Progress, catalog: Notifier | None, hook: str, **arguments: Any) -> None:
    """Observers only watch: one that raises is told of, and changes nothing."""
    if catalog is None:
        return
    try:
        catalog.notify(hook, **arguments)
    except Exception as error:
        progress.warn(f"an observer failed in {hook}: {error}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
