"""`unlearn-suite run PLAN`: plan -> cells -> processes -> report."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ..errors import GATE, INTERRUPTED, OK, TERMINATED, GateError, PlanError
from .estimate import estimates, exit_code, listed_estimate_option, print_estimates
from .options import debug_option, debugging, json_option, open_plan, plan_argument, plugin_option, print_json

if TYPE_CHECKING:
    from ..plan import Plan
    from ..plan.grammar import Compute
    from ..plugins import Catalog
    from ..store import RunDir
    from ..study import Cell
    from ..worker.estimate import CellEstimate


@click.command()
@plan_argument
@plugin_option
@click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder that holds runs; this one is DIRECTORY/<name of the plan>.",
)
@click.option("--only", metavar="GLOB", help="Only cells whose folder name matches, such as '*.cosine-rmu.s0.*'.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Do at most N of the cells that are not done.")
@click.option("--dry-run", is_flag=True, help="List the cells and what is done; run nothing.")
@listed_estimate_option
@json_option
@debug_option
def run(
    plan_file: Path,
    plugin_files: tuple[Path, ...],
    runs: Path,
    only: str | None,
    limit: int | None,
    dry_run: bool,
    estimate: bool,
    as_json: bool,
) -> int:
    """Run what PLAN asks for and is not done yet.

    Then print the table and write the report.
    Running the same command again continues: finished cells are left alone.
    """
    from .. import models
    from ..plan import resolved
    from ..store import RunDir
    from ..study import build_cells

    plan, catalog = open_plan(plan_file, plugin_files)
    cells = build_cells(plan, identity=models.identity)
    path = runs / plan.name
    chosen = _limited(_matching(cells, only), path, limit)
    if estimate and not dry_run:
        raise click.UsageError("--estimate goes with --dry-run")
    if dry_run:
        found = estimates([c for c in chosen if _state(c, path) != "done"], catalog, path) if estimate else None
        _list(chosen, path, found, as_json)
        return exit_code(found or ())
    _check_data([cell for cell in chosen if _state(cell, path) != "done"], catalog, plan.compute)
    with RunDir.open(runs, plan.name) as run_dir:
        heads = [{"id": cell.id, "folder": cell.folder} for cell in cells]
        lock = {**resolved(plan), "cells": heads, "notes": list(plan.notes)}
        run_dir.save_plan(plan.path.read_text(encoding="utf-8"), lock)
        files = [*plugin_files, *plan.plugins]
        catalog.notify("on_run_start", run=run_dir.info)
        code = _run(chosen, run_dir, catalog, plan.compute, files, sys.stderr if as_json else sys.stdout)
        if code in (INTERRUPTED, TERMINATED):
            return code
        if code == OK:
            run_dir.drop_kept()
        summary = _write_results(run_dir, cells)
        catalog.notify("on_run_end", run=run_dir.info, summary=summary)
        return _finish(plan, run_dir, summary, code, partial=len(chosen) < len(cells), as_json=as_json)


def _matching(cells: list[Cell], only: str | None) -> list[Cell]:
    if only is None:
        return cells
    found = [cell for cell in cells if fnmatchcase(cell.folder, only)]
    if not found:
        names = "\n    ".join(cell.folder for cell in cells)
        message = f"no cell of this plan matches --only {only!r}"
        raise PlanError(message, code="only-nothing", hint=f"the cells are\n    {names}")
    return found


def _limited(cells: list[Cell], path: Path, limit: int | None) -> list[Cell]:
    """Without the cells to do beyond the limit."""
    if limit is None:
        return cells
    waiting = [cell for cell in cells if _state(cell, path) != "done"]
    left_out = {cell.folder for cell in waiting[limit:]}
    return [cell for cell in cells if cell.folder not in left_out]


def _state(cell: Cell, path: Path) -> str:
    """The state in status.json; "pending" when the cell has none, or is to be done again."""
    from ..runner.cell import is_done
    from ..store import CellDir

    cell_dir = CellDir(path / "cells" / cell.folder)
    state = str(cell_dir.status.get("state", "pending"))
    return "pending" if state == "done" and not is_done(cell, cell_dir) else state


def _list(cells: list[Cell], path: Path, found: list[CellEstimate] | None, as_json: bool) -> None:
    states = [(cell, _state(cell, path)) for cell in cells]
    if as_json:
        costs = {e.id: {"estimate": e.to_json()} for e in found or ()}
        shown = [{"id": c.id, "state": s, "folder": f"cells/{c.folder}", **costs.get(c.id, {})} for c, s in states]
        print_json(shown)
        return
    width = max(len(state) for _, state in states)
    for cell, state in states:
        click.echo(f"{state:{width}}  {cell.id}  {cell.folder}")
    for line in _starts(cells, path):
        click.echo(line)
    to_do = [cell for cell, state in states if state != "done"]
    keys = _trained(path) if to_do else set()
    known = sum(cell.training.get("key") in keys for cell in to_do)
    told = f" ({known} trained already)" if known else ""
    click.echo(f"{len(cells)} cells, {len(to_do)} to do{told}, in {path}")
    if found is not None:
        print_estimates(found)


def _trained(path: Path) -> set[str]:
    """The trainings whose weights a cell of the run holds."""
    from ..store import RunDir

    held = [cell.cell.get("training") for cell in RunDir(path).cells() if cell.patch_path.exists()]
    return {training["key"] for training in held if training}


def _starts(cells: list[Cell], path: Path) -> Iterator[str]:
    """A line for each model that cells begin with and that has to be made, or has been."""
    for key, cell in {cell.start["key"]: cell for cell in reversed(cells) if cell.start.get("key")}.items():
        made = (path / "shared" / "starts" / str(key) / "patch.safetensors").exists()
        stages = ", ".join(f"{s['use'].rpartition('/')[2]} ({s['train']['steps']} steps)" for s in cell.start["stages"])
        state = "made" if made else "to be made by its first cell"
        yield f"{cell.problem} begins from {cell.model} after {stages}: {state}"


def _run(
    cells: list[Cell], run_dir: RunDir, catalog: Catalog, compute: Compute, files: list[Path], stream: TextIO
) -> int:
    """Run the cells that are not done; the exit code."""
    from ..runner import make_progress, run_cells

    return run_cells(
        cells,
        run_dir,
        _execute,
        catalog=catalog,
        workers=compute.workers,
        devices=compute.devices,
        progress=make_progress(stream),
        plugins=files,
        debug=debugging(),
    )


def _check_data(cells: list[Cell], catalog: Catalog, compute: Compute) -> None:
    """Raise what is wrong with the data of the cells to do, before anything is run or written."""
    if cells:
        from ..worker.before import check_data

        check_data(cells, catalog, keep=compute.workers == compute.devices == 1)


def _execute(*arguments: Any) -> None:
    """The worker, loaded (with torch) only when there is a cell to do."""
    from ..worker import execute

    execute(*arguments)


def _write_results(run_dir: RunDir, cells: list[Cell]) -> dict[str, Any]:
    """Write results/ and the report; the content of results/summary.json."""
    from ..report import write_report, write_summary
    from ..store import write_records

    write_records(run_dir, {cell.folder for cell in cells})
    summary: dict[str, Any] = json.loads(write_summary(run_dir.path).read_text(encoding="utf-8"))
    write_report(run_dir.path)
    return summary


def _finish(plan: Plan, run_dir: RunDir, summary: dict[str, Any], code: int, *, partial: bool, as_json: bool) -> int:
    """Print the table and the gates that do not hold; the exit code."""
    from rich.console import Console

    from ..report import print_table
    from .gates import unmet_gates

    unmet = unmet_gates(plan.gates, summary, partial=partial)
    if as_json:
        paths = {"run": ".", "report": "report/index.html", "summary": "results/summary.json"}
        shown = {name: str(run_dir.path / path) for name, path in paths.items()}
        print_json({**shown, "cells": summary["cells"], "unmet": unmet, "exit": code or (GATE if unmet else OK)})
    else:
        print_table(run_dir.path, Console())
        click.echo(f"report: {run_dir.path / 'report' / 'index.html'}")
    for sentence in unmet:
        click.echo(sentence, err=True)
    if unmet and code == OK:
        count = "an expectation does" if len(unmet) == 1 else f"{len(unmet)} expectations do"
        raise GateError(f"{count} not hold", code="gate", hint="see the report")
    return code
