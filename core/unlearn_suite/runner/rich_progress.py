"""The live display on a terminal: a bar for the cells, one for the work at hand, finished work above them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Display
from rich.table import Column
from rich.text import Text

from ..study import Cell
from .progress import NoProgress, Phase, Running, duration, label, numbers

_STYLES = {"done": "green", "failed": "bold red", "interrupted": "yellow"}


class RichProgress(NoProgress):
    """Between `begin_run` and `end_run` other output to stdout and stderr is printed above the bars."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self.console = Console(file=stream)
        self._display = Display(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", justify="right", markup=False, table_column=Column(no_wrap=True)),
            TimeElapsedColumn(),
            _Facts(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=self.console,
            transient=True,
            refresh_per_second=5,
            expand=True,
        )
        self._cells: TaskID | None = None
        self._bars: list[TaskID] = []
        self._others: dict[str, TaskID] = {}

    def begin_run(self, n_cells: int, n_done: int) -> None:
        self._cells = self._bar("cells", n_cells, n_done)
        self._display.start()

    def end_run(self) -> None:
        self._display.stop()

    def begin_cell(self, cell: Cell) -> None:
        self._clear()
        self._print(label(cell), "bold")

    def end_cell(self, cell: Cell, state: str, seconds: float, message: str = "") -> None:
        self._clear()
        if cell.id in self._others:
            self._display.remove_task(self._others.pop(cell.id))
        text = f"  {state} after {duration(seconds)}" + (f": {message}" if message else "")
        name = f"  {label(cell)}" if self._others else ""
        self._print(name + text, _STYLES.get(state, ""))
        if self._cells is not None and state != "interrupted":
            self._display.advance(self._cells)
            self._recount(self._cells)

    def begin(self, what: str, total: int | None) -> None:
        super().begin(what, total)
        self._bars.append(self._bar(what, total, 0))

    def update(self, done: int, info: Mapping[str, float] | None = None) -> None:
        super().update(done, info)
        if self._bars:
            self._show(self._bars[-1], self.phases[-1])

    def end(self, summary: str = "") -> None:
        if not self.phases:
            return
        phase = self.phases[-1]
        super().end(summary)
        self._display.remove_task(self._bars.pop())
        seconds = self.clock() - phase.began
        facts = summary or numbers(phase.info)
        if summary or seconds >= 1:
            self._print(f"  {phase.what}: {duration(seconds)}" + (f", {facts}" if facts else ""), "dim")

    def running(self, cells: Sequence[Running]) -> None:
        super().running(cells)
        for one in cells:
            if one.cell.id not in self._others:
                self._others[one.cell.id] = self._bar(f"{label(one.cell)}: starting", None, 0)
            if one.phase:
                name = f"{label(one.cell)}: {one.phase.what}"
                self._show(self._others[one.cell.id], one.phase, name)

    def say(self, text: str) -> None:
        self._print("  " + text.replace("\n", "\n  "))

    def warn(self, text: str) -> None:
        self._print(f"  warning: {text}", "yellow")

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), highlight=False, soft_wrap=True)

    def _bar(self, what: str, total: int | None, done: int) -> TaskID:
        count = f"{done}/{total}" if total else ""
        return self._display.add_task(what, total=total, completed=done, count=count, facts="")

    def _show(self, bar: TaskID, phase: Phase, name: str | None = None) -> None:
        facts = "  ".join(part for part in (phase.pace(), numbers(phase.info)) if part)
        self._display.update(
            bar,
            description=name or phase.what,
            total=phase.total,
            completed=phase.done,
            count=phase.count(),
            facts=facts,
        )

    def _recount(self, bar: TaskID) -> None:
        task = next(task for task in self._display.tasks if task.id == bar)
        self._display.update(bar, count=f"{task.completed:.0f}/{task.total:.0f}" if task.total else "")

    def _clear(self) -> None:
        """Drop what an exception may have left open."""
        self.phases.clear()
        while self._bars:
            self._display.remove_task(self._bars.pop())


class _Facts(ProgressColumn):
    """Rate, time left and the last scalars, cut at the edge of the terminal."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields["facts"]), no_wrap=True, overflow="ellipsis")
