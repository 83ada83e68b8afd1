"""The table of `plan check --estimate` and `run --dry-run --estimate`: what each cell takes, and whether it fits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import OK, PREREQUISITE

if TYPE_CHECKING:
    from ..plugins import Catalog
    from ..study import Cell
    from ..worker.estimate import CellEstimate

_TOLD = "memory, disk and FLOPs of every cell, without loading weights."
estimate_option = click.option("--estimate", is_flag=True, help=f"Tell {_TOLD}")
listed_estimate_option = click.option("--estimate", is_flag=True, help=f"With --dry-run: tell {_TOLD}")


def estimates(cells: Sequence[Cell], catalog: Catalog, disk: Path) -> list[CellEstimate]:
    """Loads torch, and the plan's data and configurations, but no weights."""
    from ..runner import make_progress
    from ..worker.estimate import estimate_cells

    return list(estimate_cells(cells, catalog, disk, make_progress(sys.stderr)))


def print_estimates(found: Sequence[CellEstimate]) -> None:
    """A line per cell; cells that differ in the seed alone are one line. "in": the phase that takes the most memory."""
    head = ("cell", "device", "in", "host", "disk", "FLOPs", "fits")
    rows = [head, *dict.fromkeys(_row(e) for e in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:-1], widths[1:-1], strict=True)), row[-1]]
        click.echo("  ".join(cells).rstrip())
    for device, free, free_disk in sorted({(e.device, e.free_bytes, e.free_disk) for e in found}, key=str)[:1]:
        click.echo(f"free now: {size(free)} on {device}, {size(free_disk)} on disk")
        left = sum(e.left_bytes for e in found)
        full = "; too much: `compute: {patches: drop}` leaves scores alone" if left > free_disk else ""
        click.echo(f"{len(found)} cells leave {size(left)} of patches{full}")
    for note in dict.fromkeys(f"{name(e)}: {note}" for e in found for note in e.notes):
        click.echo(f"note: {note}")


def exit_code(found: Sequence[CellEstimate]) -> int:
    """`PREREQUISITE` when a cell does not fit."""
    return PREREQUISITE if any(e.fits is False for e in found) else OK


def as_json(found: Sequence[CellEstimate]) -> list[dict[str, Any]]:
    return [e.to_json() for e in found]


def name(estimate: CellEstimate) -> str:
    """problem.model.arm of a cell."""
    return ".".join(estimate.folder.split(".")[:-2])


def _row(estimate: CellEstimate) -> tuple[str, ...]:
    fits = {True: "yes", False: "NO", None: "not known"}[estimate.fits]
    host = size(estimate.host_bytes) if estimate.host_bytes else "-"
    total = float(sum(estimate.flops.values()))
    device = size(estimate.device_bytes), estimate.peak_phase or "-"
    return name(estimate), *device, host, size(estimate.disk_bytes), _scaled(total, ""), fits


def size(value: int | None) -> str:
    """Bytes for people (decimal units)."""
    return "?" if value is None else _scaled(float(value), "B")


def _scaled(value: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G", "T", "P"):
        if value < 999.5:
            return f"{value:.3g} {prefix}{unit}".rstrip()
        value /= 1000
    return f"{value:.3g} E{unit}"
