"""What a run tells while it works: nothing, few plain lines (logs, CI), or a live display (terminals).

Phases nest (sampling inside a training stage): `begin` opens one, `update` and `end` speak of the last
one that is open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from ..study import Cell

STOPPING = "stopping as soon as the work at hand is saved (interrupt again to stop at once)"


class Progress(Protocol):
    """Everything the runner, the engine and the evaluation report. `seconds` are wall time."""

    def begin_run(self, n_cells: int, n_done: int) -> None: ...
    def end_run(self) -> None: ...
    def begin_cell(self, cell: Cell) -> None: ...
    def end_cell(self, cell: Cell, state: str, seconds: float, message: str = "") -> None: ...
    def begin(self, what: str, total: int | None) -> None: ...
    def update(self, done: int, info: Mapping[str, float] | None = None) -> None: ...
    def end(self, summary: str = "") -> None: ...
    def running(self, cells: Sequence[Running]) -> None:
        """How far the cells in other processes are."""

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def request_stop(self) -> None: ...
    def stop_requested(self) -> bool: ...


@dataclass
class Phase:
    """One stretch of work. Its rate counts from the first update: set-up and resumed steps are no work."""

    what: str
    total: int | None
    began: float
    done: int = 0
    info: Mapping[str, float] = field(default_factory=dict)
    first: tuple[float, int] | None = None
    rate: float | None = None
    """units per second"""

    def update(self, now: float, done: int, info: Mapping[str, float] | None) -> None:
        self.done = done
        self.info = info or self.info
        if self.first is None:
            self.first = (now, done)
        elif now > self.first[0] and done > self.first[1]:
            self.rate = (done - self.first[1]) / (now - self.first[0])

    @property
    def left(self) -> float | None:
        """Seconds until the end at the present rate."""
        return (self.total - self.done) / self.rate if self.total and self.rate else None

    def count(self) -> str:
        return f"{self.done}/{self.total}" if self.total else str(self.done) if self.done else ""

    def pace(self) -> str:
        """Rate and time left: "1.9/s, 19 s left"."""
        parts = [f"{self.rate:.3g}/s"] if self.rate else []
        if self.left is not None:
            parts.append(f"{duration(self.left)} left")
        return ", ".join(parts)


@dataclass(frozen=True)
class Running:
    """A cell in another process: its phase as last recorded (None: starting up)."""

    cell: Cell
    phase: Phase | None


def duration(seconds: float) -> str:
    """For people: "0.4 s", "19 s", "1 min 12 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def numbers(info: Mapping[str, float], most: int = 4) -> str:
    """The first few scalars: "loss 0.52, cos 0.11"."""
    return ", ".join(f"{name} {value:.4g}" for name, value in list(info.items())[:most])


def label(cell: Cell) -> str:
    return f"{cell.problem} / {cell.arm} ({cell.model}, seed {cell.seed})"


class NoProgress:
    """Says nothing; also the base of the others: the stop flag and the open phases."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.phases: list[Phase] = []
        self._stop = False
        self._told_stop = False

    def begin_run(self, n_cells: int, n_done: int) -> None:
        pass

    def end_run(self) -> None:
        pass

    def begin_cell(self, cell: Cell) -> None:
        pass

    def end_cell(self, cell: Cell, state: str, seconds: float, message: str = "") -> None:
        self.phases.clear()  # what an exception left open

    def begin(self, what: str, total: int | None) -> None:
        self.phases.append(Phase(what, total, self.clock()))

    def update(self, done: int, info: Mapping[str, float] | None = None) -> None:
        if self.phases:
            self.phases[-1].update(self.clock(), done, info)
        self._tell_stop()

    def end(self, summary: str = "") -> None:
        if self.phases:
            self.phases.pop()

    def running(self, cells: Sequence[Running]) -> None:
        self._tell_stop()

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def request_stop(self) -> None:
        """Safe in a signal handler: nothing is printed here."""
        self._stop = True

    def stop_requested(self) -> bool:
        return self._stop

    def _tell_stop(self) -> None:
        if self._stop and not self._told_stop:
            self._told_stop = True
            self.say(STOPPING)


class PlainProgress(NoProgress):
    """Lines without control characters, at most one per `interval` seconds beside starts and ends."""

    def __init__(self, stream: IO[str], interval: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self.stream = stream
        self.interval = interval
        self._total = 0
        self._number = 0
        self._numbers: dict[str, str] = {}
        self._last = clock()

    def begin_run(self, n_cells: int, n_done: int) -> None:
        self._total, self._number = n_cells, n_done
        cells = "1 cell" if n_cells == 1 else f"{n_cells} cells"
        self._line(cells + (f", {n_done} done already" if n_done else ""))

    def begin_cell(self, cell: Cell) -> None:
        self._number += 1
        self._numbers[cell.id] = f"[{self._number}/{self._total}]"
        self.phases.clear()
        self._line(f"{self._numbers[cell.id]} {label(cell)}")

    def end_cell(self, cell: Cell, state: str, seconds: float, message: str = "") -> None:
        super().end_cell(cell, state, seconds, message)
        number = self._numbers.get(cell.id, "")
        self._line(f"{number} {state} after {duration(seconds)}" + (f": {message}" if message else ""))

    def update(self, done: int, info: Mapping[str, float] | None = None) -> None:
        super().update(done, info)
        if self.phases and self.clock() - self._last >= self.interval:
            self._line("    " + phase_text(self.phases[-1]))

    def end(self, summary: str = "") -> None:
        if not self.phases:
            return
        phase = self.phases.pop()
        seconds = self.clock() - phase.began
        if summary or seconds >= 1:
            of = f"{phase.total} in " if phase.total else ""
            facts = summary or numbers(phase.info)
            self._line(f"    {phase.what}: {of}{duration(seconds)}" + (f", {facts}" if facts else ""))

    def running(self, cells: Sequence[Running]) -> None:
        super().running(cells)
        if cells and self.clock() - self._last >= self.interval:
            for one in cells:
                what = phase_text(one.phase) if one.phase else "starting"
                self._line(f"    {self._numbers.get(one.cell.id, one.cell.id)} {what}")

    def say(self, text: str) -> None:
        for line in text.splitlines():
            self._line(f"    {line}")

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")

    def _line(self, text: str) -> None:
        """A closed pipe or terminal must not end a run of hours: what cannot be written is left out."""
        self._last = self.clock()
        clean = "".join(c if c.isprintable() else " " for c in text.rstrip())
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        with suppress(OSError, ValueError):
            self.stream.write(clean.encode(encoding, "replace").decode(encoding) + "\n")
            self.stream.flush()


def phase_text(phase: Phase) -> str:
    """One line: "cosine-rmu 24/60, 1.9/s, 19 s left: loss 0.52, cos 0.11"."""
    head = f"{phase.what} {phase.count()}".rstrip()
    pace, info = phase.pace(), numbers(phase.info)
    return head + (f", {pace}" if pace else "") + (f": {info}" if info else "")


def make_progress(stream: IO[str]) -> Progress:
    """A live display when `stream` is a terminal, else plain lines."""
    if getattr(stream, "isatty", lambda: False)():
        from .rich_progress import RichProgress

        return RichProgress(stream)
    return PlainProgress(stream)


def phase_of(record: Mapping[str, Any]) -> Phase | None:
    """The phase that a `RecordProgress` wrote."""
    if not record.get("what"):
        return None
    return Phase(
        record["what"], record["total"], 0.0, int(record["done"]), dict(record["info"]), rate=record.get("rate")
    )
