"""The run's last word on the terminal: before, after, change, interval and verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .alarms import signs
from .attacks import attack_lines
from .expected import expectations, expected_lines
from .judge import Verdict
from .load import CellData, RunData
from .measures import Measure, Result
from .sentences import arm_lines, headline, mark
from .summary import ProblemSummary, summarize
from .words import between, number, signed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLOURS = {"met": "green", "likely": "green", "unclear": "yellow", "missed": "red"}


def print_table(run_path: Path, console: Console | None = None) -> None:
    """Print a run's summary: per problem its verdict, and per arm each shown value. Fits 80 columns.

    Marks and words carry the meaning; colours only repeat it, and only on a terminal.
    """
    from rich.console import Console as RichConsole
    from rich.text import Text

    console = console or RichConsole()
    run = RunData(run_path)
    problems = summarize(run)
    for problem in problems:
        state, sentence = headline(problem, arm_lines(problem))
        title = f"{problem.problem} on {problem.model}"
        console.print(Text(f"\n{title}", style="bold"))
        console.print(Text(f"{mark(state)} {sentence}", style=COLOURS.get(state or "", "")))
        if problem.start:
            console.print(Text(problem.start))
        for i, arm in enumerate(problem.arms or (problem.base_arm,)):
            if any(arm in m.arms or (arm == problem.base_arm and m.base) for m in problem.measures):
                console.print(Text(f"\n{_arm_title(problem, arm)}", style="bold"))
                console.print(_table(problem, arm, header=i == 0))
        for sign in signs(problem):
            console.print(Text(f"⚠ {sign.arm}: {sign.text}", style=COLOURS["unclear"]))
        for n, line in enumerate(expected_lines(expectations(run, problem))):
            console.print(Text(f"{'' if n else chr(10)}{line}"))
        for line in attack_lines(run, problem):
            console.print(Text(line))
    for cell in run.cells:
        if cell.state in {"failed", "interrupted"}:
            console.print(Text(failure_text(cell), style="red"))


def _table(problem: ProblemSummary, arm: str, header: bool) -> Table:
    """One arm's rows; fixed widths, so that the arms' tables stand under each other like one."""
    from rich.table import Table as RichTable

    table = RichTable(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=header, header_style="dim")
    table.add_column("", width=1)  # an indent that folded names keep
    table.add_column("measure", width=21, overflow="fold")
    for name, width in (("before", 7), ("after", 7), ("change", 7), ("95 % interval", 17)):
        table.add_column(name, justify="right", width=width)
    table.add_column("result", width=13, no_wrap=True)
    for measure in problem.measures:
        result = measure.arms.get(arm) or (measure.base if arm == problem.base_arm else None)
        if measure.shown and result is not None:
            table.add_row(*_row(measure, result))
    return table


def _arm_title(problem: ProblemSummary, arm: str) -> str:
    cells = problem.cells_of(arm)
    done = sum(c.state == "done" for c in cells)
    if done < len(cells):
        return f"{arm} ({done} of {len(cells)} cells done)"
    return f"{arm} ({done} seeds)" if done > 1 else arm


def _row(measure: Measure, result: Result) -> list[str]:
    label = _escape(measure.label)
    compared = result.compared
    if compared is None:
        places = measure.info.places(result.after.mean)
        plain = number(result.after.mean, places)
        return ["", label, plain, "–", "–", between(result.after, places), ""]
    places = measure.info.places(compared.before.mean)
    return [
        "",
        label,
        number(compared.before.mean, places),
        number(compared.after.mean, places),
        signed(compared.change.mean, places),
        between(compared.change, places, sign=True),
        _verdict(result.verdict),
    ]


def _verdict(verdict: Verdict | None) -> str:
    return f"[{COLOURS[verdict.state]}]{verdict.text}[/]" if verdict else ""


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def failure_text(cell: CellData) -> str:
    """'✗ toxicity.smol.rmu.s1 failed: message (hint)'."""
    error = cell.status.get("error") or {}
    told = str(error.get("message") or "stopped before it was done") if isinstance(error, dict) else str(error)
    hint = str(error.get("hint") or "") if isinstance(error, dict) else ""
    name = f"{cell.problem}.{cell.model}.{cell.arm}.s{cell.seed}"
    return f"✗ {name} {cell.state}: {told}" + (f" ({hint})" if hint else "")
