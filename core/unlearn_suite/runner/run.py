"""All cells of a run: those that are not done, in this process or in a pool of workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import BUG, INTERRUPTED, OK, PLUGIN, PREREQUISITE, SOME_CELLS_FAILED, USAGE
from ..study import Cell
from .cell import is_done, run_cell
from .contracts import Execute, Notifier, Outcome, RunStore
from .pool import Command, Pool, worker_command
from .progress import NoProgress, Progress
from .signals import Stop, stop_on_signals


def run_cells(
    cells: Sequence[Cell],
    run: RunStore,
    execute: Execute,
    *,
    catalog: Notifier | None = None,
    workers: int = 1,
    devices: int = 1,
    progress: Progress | None = None,
    plugins: Sequence[str | Path] = (),
    command: Command | None = None,
    debug: bool = False,
) -> int:
    """Run every cell that is not done and return the exit code.

    0 when all cells are done; 130 or 143 when a signal stopped the run; the failures' own code (2 usage,
    3 plugin, 4 prerequisite, 70 bug) when no cell is done and all failed with it; else 1. Failed,
    interrupted and half-done cells are tried again by the next call; there is no other retry.

    With `workers` > 1 each cell gets a process (`command`, by default the suite's worker with the
    single-file `plugins`) and `execute` and `catalog` are not used here; so with `devices` > 1, where the worker
    is torchrun with as many processes for the cell. `debug`: tracebacks on the console.
    """
    progress = progress or NoProgress()
    todo = [cell for cell in cells if not is_done(cell, run.cell_dir(cell))]
    progress.begin_run(len(cells), len(cells) - len(todo))
    outcomes: list[Outcome] = []
    with stop_on_signals(progress.request_stop) as stop:
        try:
            if (workers > 1 or devices > 1) and todo:
                pool = Pool(run, command or worker_command(plugins, devices), workers, progress, stop, devices)
                pool.run_all(todo, outcomes)
            else:
                _run_here(todo, run, execute, catalog, progress, stop, debug, outcomes)
        except KeyboardInterrupt:  # between two cells, or while an end was being noted
            stop.code = stop.code or INTERRUPTED
        finally:
            progress.end_run()
    stopped = bool(stop.code) and (len(outcomes) < len(todo) or any(o.state == "interrupted" for o in outcomes))
    progress.say(closing_line(len(cells), len(cells) - len(todo), outcomes))
    return stop.code if stopped else exit_code(outcomes, len(cells) - len(todo))


def _run_here(
    todo: Sequence[Cell],
    run: RunStore,
    execute: Execute,
    catalog: Notifier | None,
    progress: Progress,
    stop: Stop,
    debug: bool,
    outcomes: list[Outcome],
) -> None:
    for cell in todo:
        if stop.code:
            break
        outcomes.append(run_cell(cell, run, execute, catalog, progress, debug))
        if outcomes[-1].state == "interrupted":
            stop.code = stop.code or INTERRUPTED


def exit_code(outcomes: Sequence[Outcome], n_done: int = 0) -> int:
    """The code of a run that was not stopped; `n_done` cells were done before it."""
    failed = [outcome for outcome in outcomes if outcome.state != "done"]
    if not failed:
        return OK
    codes = {int((outcome.error or {}).get("exit", SOME_CELLS_FAILED)) for outcome in failed}
    if len(failed) == len(outcomes) and not n_done and len(codes) == 1:
        code = codes.pop()
        return code if code in (USAGE, PLUGIN, PREREQUISITE, BUG) else SOME_CELLS_FAILED
    return SOME_CELLS_FAILED


def closing_line(n_cells: int, n_done_before: int, outcomes: Sequence[Outcome]) -> str:
    """What is done, and what the same command would do next."""
    done = n_done_before + sum(outcome.state == "done" for outcome in outcomes)
    failed = sum(outcome.state == "failed" for outcome in outcomes)
    left = n_cells - done - failed
    if n_done_before == n_cells:
        return f"nothing to do: {_cells(n_cells)} done already"
    parts = [f"{done} of {_cells(n_cells)} done"]
    again = "run the same command again to "
    if left:
        parts.append(f"{left} left; {again}continue" + (f" and retry the {failed} failed" if failed else ""))
    elif failed:
        parts.append(f"{failed} failed; {again}retry the {_cells(failed, 'failed ')}")
    return ", ".join(parts)


def _cells(n: int, kind: str = "") -> str:
    return f"{n} {kind}cell" + ("" if n == 1 else "s")
