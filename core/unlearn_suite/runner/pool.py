"""Cells in worker processes. A worker that dies, by any signal, is one failed cell and nothing more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ..errors import PrerequisiteError, SuiteError, TrainingError
from ..study import Cell
from .cell import as_json, as_suite_error
from .contracts import CellStore, Outcome, RunStore
from .progress import Progress, Running, phase_of
from .signals import Stop

Command = Callable[[Path, Cell], Sequence[str]]
"""command(run folder, cell) -> the worker's argument list"""

_POLL = 0.1
_GRACE = 10.0
"""seconds between asking a worker to stop at once and killing it"""


_SHUTDOWN = 120
"""seconds that torchrun gives its processes to end their step and save when it is asked to stop"""


def worker_command(plugins: Sequence[str | Path] = (), devices: int = 1) -> Command:
    """The real worker, with the single-file plugins of the run; under torchrun where a cell has several devices."""
    extra = [part for path in plugins for part in ("--plugin", str(path))]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices)]

    def command(run: Path, cell: Cell) -> Sequence[str]:
        start = [sys.executable, *(torchrun if devices > 1 and cell.trains else [])]
        return [*start, "-m", "unlearn_suite.worker", str(run), cell.folder, *extra]

    return command


@dataclass
class Pool:
    """At most `workers` processes at a time, each for one cell (and each the parent of `devices` others if > 1)."""

    run: RunStore
    command: Command
    workers: int
    progress: Progress
    stop: Stop
    devices: int = 1
    active: list[Worker] = field(default_factory=list)

    def run_all(self, cells: Sequence[Cell], outcomes: list[Outcome]) -> None:
        """Run all cells and add their outcomes to `outcomes` in the order of ending.

        Base cells start first, so that others find their scores. A requested stop is handed on to the
        workers, which save and end; an exception here (a second interrupt) ends them at once.
        """
        waiting = sorted(cells, key=lambda cell: not cell.is_base)
        try:
            while self.active or (waiting and not self.stop.code):
                while waiting and len(self.active) < self.workers and not self.stop.code:
                    outcomes += self._start(waiting.pop(0))
                for worker in [w for w in self.active if w.process.poll() is not None]:
                    self.active.remove(worker)
                    outcomes.append(worker.finish(self.progress))
                for worker in self.active if self.stop.code else ():
                    worker.ask_to_stop(self.stop.code - 128)
                self._show()
                time.sleep(_POLL)
        finally:
            outcomes += self._end_now()

    def _start(self, cell: Cell) -> list[Outcome]:
        """Start a worker; the outcome when that fails already."""
        self.progress.begin_cell(cell)
        try:
            self.active.append(Worker(cell, self.run, self.command, self.workers * self.devices))
        except (SuiteError, OSError) as error:
            found = as_suite_error(error)
            if found is None:
                hint = "see that Python can start processes here"
                found = PrerequisiteError(f"no worker could be started: {error}", code="no-worker", hint=hint)
            outcome = Outcome(cell, "failed", as_json(found))
            self.progress.end_cell(cell, outcome.state, 0.0, outcome.message)
            return [outcome]
        return []

    def _show(self) -> None:
        self.progress.running([worker.look(self.progress) for worker in self.active])

    def _end_now(self) -> list[Outcome]:
        """Interrupt what still runs, twice, and kill what does not end by that."""
        for worker in self.active:
            worker.ask_to_stop(signal.SIGINT)
            worker.send(signal.SIGINT)
        deadline = time.monotonic() + _GRACE
        for worker in self.active:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        return [worker.finish(self.progress) for worker in self.active]


@dataclass
class Worker:
    """One process with one cell. Its output is the cell's worker.log."""

    cell: Cell
    run: RunStore
    command: Command
    workers: int
    cell_dir: CellStore = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)
    warned: int = 0
    asked: bool = False

    def __post_init__(self) -> None:
        self.cell_dir = self.run.cell_dir(self.cell)
        self.cell_dir.set_status(state="pending", error=None)
        self.cell_dir.write_progress({})
        self.cell_dir.write_process_error(None)
        self.started = time.monotonic()
        with self.log_path.open("wb") as log:
            self.process = self._start(log)

    @property
    def log_path(self) -> Path:
        return self.cell_dir.path / "worker.log"

    def _start(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        # a session of its own: an interrupt from the terminal reaches the parent alone, which hands it on;
        # standard input: a pipe that nobody writes to and that closes when the parent dies;
        # safe path: a file `copy.py` where the user stands must not stand in for Python's own, under torchrun either
        return subprocess.Popen(
            list(self.command(self.run.path, self.cell)),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONSAFEPATH": "1",
                "OMP_NUM_THREADS": str(threads_per_worker(self.workers)),
                "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(_SHUTDOWN),
            },
            start_new_session=True,
        )

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def ask_to_stop(self, number: int) -> None:
        if not self.asked:
            self.asked = True
            self.send(number)

    def look(self, progress: Progress) -> Running:
        """How far the worker is; its new warnings are passed on."""
        record = self.cell_dir.progress
        for text in record.get("warnings", [])[self.warned :]:
            progress.warn(f"{self.cell.folder}: {text}")
            self.warned += 1
        return Running(self.cell, phase_of(record))

    def finish(self, progress: Progress) -> Outcome:
        """The outcome of a process that has ended; one it could not note itself is noted here."""
        if self.process.stdin:
            self.process.stdin.close()
        self.look(progress)
        outcome = self._outcome(self.process.returncode)
        if self.cell_dir.status.get("state") != outcome.state:
            try:
                self.cell_dir.set_status(state=outcome.state, error=outcome.error)
                self.run.event("cell_end", cell=self.cell.id, state=outcome.state, error=outcome.error)
            except SuiteError as error:
                progress.warn(f"the end of {self.cell.folder} could not be noted: {error}")
        progress.end_cell(self.cell, outcome.state, time.monotonic() - self.started, outcome.message)
        return outcome

    def _outcome(self, code: int) -> Outcome:
        status = self.cell_dir.status
        state = status.get("state")
        if state in ("done", "interrupted"):
            return Outcome(self.cell, state)
        if state == "failed":
            return Outcome(self.cell, state, status.get("error"))
        if left := self.cell_dir.process_error:
            return Outcome(self.cell, "failed", left)
        if self.asked:
            return Outcome(self.cell, "interrupted")
        hint = f"read {self.log_path}, then run the same command again to go on from the last checkpoint"
        error: SuiteError
        if code < 0:
            cause = ": out of memory?" if -code == signal.SIGKILL else f" ({signal.strsignal(-code)})"
            message = f"the worker was killed by signal {-code}{cause}"
            error = PrerequisiteError(message, code="worker-killed", where=self.cell.folder, hint=hint)
        else:
            message = f"the worker ended with exit code {code}"
            error = TrainingError(message, code="worker-ended", where=self.cell.folder, hint=hint)
            error.exit_code = code or error.exit_code
        return Outcome(self.cell, "failed", as_json(error))


def threads_per_worker(workers: int) -> int:
    """A fair share of the cores this process may use, and no more than OMP_NUM_THREADS says already."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // workers)
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(given)) if given.isdigit() and int(given) > 0 else share
