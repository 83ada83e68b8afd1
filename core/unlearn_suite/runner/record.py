"""Progress of a worker process: plain lines to its log, and a small file that the parent process shows."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO

from .contracts import CellStore
from .progress import PlainProgress


class RecordProgress(PlainProgress):
    """`PlainProgress` that also keeps the cell's progress.json up to date, at most once per `every` seconds."""

    def __init__(
        self,
        cell_dir: CellStore,
        stream: IO[str],
        every: float = 1.0,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream, interval, clock)
        self._cell_dir = cell_dir
        self._every = every
        self._recorded = float("-inf")
        self._warnings: list[str] = []

    def begin(self, what: str, total: int | None) -> None:
        super().begin(what, total)
        self._record(now=True)

    def update(self, done: int, info: Mapping[str, float] | None = None) -> None:
        super().update(done, info)
        self._record()

    def warn(self, text: str) -> None:
        super().warn(text)
        self._warnings.append(text)
        self._record(now=True)

    def _record(self, now: bool = False) -> None:
        time_now = self.clock()
        if not now and time_now - self._recorded < self._every:
            return
        self._recorded = time_now
        phase = self.phases[-1] if self.phases else None
        record = {
            "what": phase.what if phase else "",
            "done": phase.done if phase else 0,
            "total": phase.total if phase else None,
            "info": dict(phase.info) if phase else {},
            "rate": phase.rate if phase else None,
            "warnings": self._warnings,
        }
        self._cell_dir.write_progress(record)


def follow_parent(grace: float = 60.0) -> None:
    """In a worker: ask this process to stop when its standard input closes, which means the parent has died.

    Without it a worker whose parent was killed would go on beside the workers of the next command. The
    process is ended after `grace` seconds when it does not stop by itself.
    """

    def watch() -> None:
        # not sys.stdin.read: a thread that holds its lock aborts the interpreter's shutdown
        while os.read(sys.stdin.fileno(), 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os._exit(143)

    threading.Thread(target=watch, daemon=True, name="follow-parent").start()
