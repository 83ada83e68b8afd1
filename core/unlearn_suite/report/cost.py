"""What training cost, a row per stage, from the cells' cost.json (see `StageCost` for what the numbers mean)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .load import CellData
from .words import number, seconds

MEMORY = {
    "device": "on the GPU: the most that was allocated there",
    "resident": "in RAM: the most the whole process held, interpreter, libraries and model included",
    "resident-so-far": "in RAM: the most the whole process had ever held until the phase's end",
}


@dataclass(frozen=True)
class CostRow:
    """One stage of one cell as text. `part`: which steps the numbers are of, when not all, and whose they are, when the
    cell took its training over."""

    cell: CellData
    stage: str
    part: str
    time: str
    rate: str
    work: str
    speed: str
    peak: str
    other_peaks: str


@dataclass(frozen=True)
class CostTable:
    """`notes`: what the memory is, one per way it was measured. `where`: devices and precisions."""

    rows: tuple[CostRow, ...]
    where: str
    notes: tuple[str, ...]


def cost_table(cells: Sequence[CellData]) -> CostTable | None:
    """All stages that say what they cost, in the order of the cells; None when none does."""
    found = [(cell, stage, cost) for cell in cells for stage, cost in _stages(cell)]
    if not found:
        return None
    where = _distinct(f"{c.get('device')}, {c.get('dtype')}" for _, _, c in found)
    notes = _distinct(MEMORY[c["memory"]] for _, _, c in found if c.get("memory") in MEMORY)
    return CostTable(tuple(_row(*item) for item in found), "; ".join(where), tuple(notes))


def _stages(cell: CellData) -> list[tuple[int, Mapping[str, Any]]]:
    """(stage, cost), leaving out what is not as it should be."""
    content = cell.folder.cost
    items = content.items() if isinstance(content, Mapping) else ()
    return sorted((int(k), v) for k, v in items if str(k).isdigit() and isinstance(v, Mapping) and _value(v, "steps"))


def _row(cell: CellData, index: int, cost: Mapping[str, Any]) -> CostRow:
    stages = cell.cell.get("stages") or []
    stage = stages[index] if index < len(stages) and isinstance(stages[index], Mapping) else {}
    name = str(stage.get("use", "")).rpartition("/")[2]
    first, steps = int(_value(cost, "first_step") or 0), int(_value(cost, "steps") or 0)
    planned = (stage.get("train") or {}).get("steps", first + steps)
    parts = [] if first == 0 and steps == planned else [f"steps {first + 1} to {first + steps} of {planned}"]
    if owner := cell.status.get("trained_by"):
        parts.append(f"as {owner}, not again")
    flops, inside = _value(cost, "flops"), _value(cost, "step_seconds")
    used = _value(cost, "utilisation")
    speed = f"{number(flops / inside / 1e12)} TFLOP/s" if flops and inside else ""
    peaks = {name: size for name in _mapping(cost, "peak_bytes") if (size := _value(cost["peak_bytes"], name))}
    return CostRow(
        cell=cell,
        stage=f"{index + 1}: {name}" if len(stages) > 1 else "",
        part="; ".join(parts),
        time=seconds(_value(_mapping(cost, "seconds"), "train")),
        rate=_places(_value(cost, "tokens_per_second")),
        work=number(flops / 1e12) if flops else "–",
        speed=speed + (f", {100 * used:.0f} % of peak" if speed and used else ""),
        peak=_gigabytes(peaks.get("train")),
        other_peaks=", ".join(f"{n} {_gigabytes(size)}" for n, size in peaks.items() if n != "train"),
    )


def _value(source: Mapping[str, Any], name: str) -> float | None:
    found = source.get(name)
    usable = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return float(found) if usable and found is not None else None


def _mapping(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = source.get(name)
    return found if isinstance(found, Mapping) else {}


def _places(value: float | None) -> str:
    return number(value, 0 if value is not None and value >= 10 else None)


def _gigabytes(size: float | None) -> str:
    return "–" if size is None else f"{number(size / 1e9, 2)} GB"


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
