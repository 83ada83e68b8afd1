"""One cell on several processes that torchrun has started: the first one leads, the others follow.

The lead does what a lone worker does. A follower runs the same stages on its share of every batch, writes nothing
and ends before the scoring. Whoever meets an error ends, and so ends all: the error of a follower is left beside
the cell for the lead, or for the process that started torchrun, to report as the cell's one error.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.distributed import PEER_LOST, Processes, joined, peers_watched
from ..errors import BUG, INTERRUPTED, OK, SOME_CELLS_FAILED, SuiteError
from ..runner import NoProgress, RecordProgress, as_json, as_suite_error, run_cells, stop_on_signals
from ..store import CellDir
from .execute import execute

if TYPE_CHECKING:
    from ..plugins import Catalog
    from ..store import RunDir
    from ..study import Cell

_BEGIN = "begin"
_PATIENCE = 5.0
"""seconds in which a follower that has ended may still be writing down why"""


def run_together(cell: Cell, run: RunDir, cell_dir: CellDir, catalog: Catalog) -> int:
    """The exit code of this process; the lead's is the cell's."""
    if os.environ["RANK"] == "0":
        cell_dir.write_process_error(None)
    with joined() as processes:
        if processes.lead:
            return _lead(cell, run, cell_dir, catalog, processes)
        with tempfile.TemporaryDirectory() as scratch:
            return _follow(cell, run, FollowerDir(cell_dir.path, Path(scratch)), catalog, processes)


def _lead(cell: Cell, run: RunDir, cell_dir: CellDir, catalog: Catalog, processes: Processes) -> int:
    begun = False

    def begin(*arguments: Any) -> None:
        nonlocal begun
        begun = True
        try:
            with peers_watched():
                processes.from_lead(_BEGIN)
                execute(*arguments)
        except SuiteError as error:
            raise (_left_error(cell_dir) if error.code == PEER_LOST else None) or error from error

    code = run_cells([cell], run, begin, catalog=catalog, progress=RecordProgress(cell_dir, sys.stdout))
    if not begun:  # done already, or another run's
        processes.from_lead("nothing to do")
    return code


def _follow(cell: Cell, run: RunDir, cell_dir: FollowerDir, catalog: Catalog, processes: Processes) -> int:
    progress = NoProgress()
    with stop_on_signals(progress.request_stop) as stop:
        try:
            with peers_watched():
                if processes.from_lead(None) == _BEGIN:
                    execute(cell, cell_dir, catalog, run, progress)
        except KeyboardInterrupt:
            return stop.code or INTERRUPTED
        except (Exception, SystemExit) as error:
            return _leave_error(error, cell_dir)
    return OK


def _leave_error(error: BaseException, cell_dir: FollowerDir) -> int:
    found = as_suite_error(error)
    if found is None or error.__cause__ is not None:
        traceback.print_exc()  # into the worker's log
    if found is None:
        message = f"unexpected error, {type(error).__name__}: {error}"
        found = SuiteError(message, code="bug", hint="please report it with the cell's worker.log")
        assert found.exit_code == BUG
    if found.code == PEER_LOST:  # the echo of another process's error
        return SOME_CELLS_FAILED
    CellDir(cell_dir.path).write_process_error(as_json(found))
    return found.exit_code


def _left_error(cell_dir: CellDir) -> SuiteError | None:
    deadline = time.monotonic() + _PATIENCE
    while (left := cell_dir.process_error) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if left is None:
        return None
    error = SuiteError(left["message"], code=left["code"], where=left["where"], hint=left["hint"])
    error.exit_code = left["exit"]
    return error


class FollowerDir(CellDir):
    """A cell's folder that is only read: the lead writes."""

    def __init__(self, path: Path, scratch: Path) -> None:
        super().__init__(path)
        self._scratch = scratch

    def beside(self, path: Path) -> FollowerDir:
        return FollowerDir(path, self._scratch)

    @property
    def artifacts(self) -> Path:
        return self._scratch

    def write_cell(self, cell: Mapping[str, Any]) -> None:
        pass

    def set_status(self, **fields: Any) -> dict[str, Any]:
        return self.status

    def append_scalars(self, stage: int, step: int, scalars: Mapping[str, float]) -> None:
        pass

    def truncate_scalars(self, stage: int, step: int) -> None:
        pass

    def write_cost(self, stage: int, cost: Mapping[str, Any]) -> None:
        pass
