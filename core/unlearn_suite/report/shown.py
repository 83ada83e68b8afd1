"""What stages showed themselves: the tables and curves of each report.json, whoever wrote them.

The content comes from plugins: whatever does not fit the form is left out, lengths are bounded, and all text
is escaped where it is put on the page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from .chart import Scale, Svg, marker, polyline, short, ticks
from .load import CellData
from .summary import ProblemSummary
from .words import number

MOST_ITEMS, MOST_ROWS, MOST_COLUMNS, MOST_LETTERS = 20, 200, 40, 300
MOST_LINES, MOST_POINTS = 6, 500
WIDTH, HEIGHT = 420.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 10.0, 34.0


@dataclass(frozen=True)
class Shown:
    """One table (`columns`, `rows`) or one picture with the names of its lines."""

    title: str
    note: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    cut: int = 0
    picture: Markup | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShownStage:
    """All that one stage of one cell showed."""

    arm: str
    seed: int
    stage: str
    items: tuple[Shown, ...]


def shown_stages(problem: ProblemSummary, name: str) -> list[ShownStage]:
    """The stages of a problem's cells that showed something, in the order of the cells."""
    found = []
    for n, cell in enumerate(problem.cells):
        stages = cell.cell.get("stages") or []
        for index, stage in enumerate(stages):
            items = tuple(_items(cell, index, f"{name}-{n}-{index}"))
            if items:
                use = str(stage.get("use", "")).rpartition("/")[2] if isinstance(stage, Mapping) else ""
                label = f"stage {index + 1}: {use}" if len(stages) > 1 else use
                found.append(ShownStage(cell.arm, cell.seed, label, items))
    return found


def _items(cell: CellData, stage: int, name: str) -> Iterator[Shown]:
    path = cell.folder.artifacts / f"stage{stage}" / "report.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    items = content.get("items") if isinstance(content, Mapping) else None
    for i, item in enumerate(items[:MOST_ITEMS] if isinstance(items, list) else ()):
        made = _item(item, f"{name}-{i}") if isinstance(item, Mapping) else None
        if made is not None:
            yield made


def _item(item: Mapping[str, Any], name: str) -> Shown | None:
    title, note = _text(item.get("title")), str(item.get("note") or "")[: 3 * MOST_LETTERS]
    if item.get("kind") == "table":
        columns, rows = item.get("columns"), item.get("rows")
        if not isinstance(columns, list) or not isinstance(rows, list):
            return None
        heads = tuple(_text(c) for c in columns[:MOST_COLUMNS])
        cells = tuple(
            tuple(_text(v) for v in row[:MOST_COLUMNS])
            for row in rows[:MOST_ROWS]
            if isinstance(row, list) and len(row) == len(columns)
        )
        return Shown(title, note, heads, cells, max(len(rows) - MOST_ROWS, 0))
    lines = {_text(k): line for k, v in _mapping(item.get("lines")).items() if (line := _points(v))}
    if item.get("kind") != "series" or not lines:
        return None
    lines = dict(list(lines.items())[:MOST_LINES])
    picture = draw(title, lines, _text(item.get("x")), _text(item.get("y")), name)
    return Shown(title, note, picture=Markup(picture), lines=tuple(lines))


def draw(title: str, lines: Mapping[str, list[tuple[float, float]]], x_name: str, y_name: str, name: str) -> str:
    """A chart as inline SVG; every point of up to 60 is marked."""
    xs = [x for line in lines.values() for x, _ in line]
    ys = [y for line in lines.values() for _, y in line]
    air = 0.06 * (max(ys) - min(ys)) or 0.1 * abs(max(ys)) or 1.0
    x = Scale(min(xs), max(xs), LEFT + 6, WIDTH - RIGHT - 6)
    y = Scale(min(ys) - air, max(ys) + air, HEIGHT - BOTTOM, TOP)
    told = "; ".join(f"{n}: {number(line[0][1])} at first, {number(line[-1][1])} at last" for n, line in lines.items())
    svg = Svg(WIDTH, HEIGHT, title, told, name, "curve")
    for tick in ticks(y.lo, y.hi, 4):
        svg.line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "rule")
        svg.text(LEFT - 5, y(tick) + 3.5, short(tick), "tick", "end")
    for tick in ticks(x.lo, x.hi, 6):
        svg.text(x(tick), HEIGHT - BOTTOM + 14, short(tick), "tick", "middle")
    svg.text(WIDTH - RIGHT, HEIGHT - 5, x_name, "tick", "end")
    svg.text(4, HEIGHT - 5, y_name, "tick", "start")
    for colour, line in enumerate(lines.values()):
        css = f"series s{colour}"
        points = polyline([x(a) for a, _ in line], [y(b) for _, b in line])
        svg.add("polyline", points=points, class_=f"{css} curve-line")
        if len(line) <= 60:
            svg.parts += [
                marker("circle", x(a), y(b), 2.4, f"{css} solid", f"{short(a)}: {number(b)}") for a, b in line
            ]
    return svg.render()


def _points(value: Any) -> list[tuple[float, float]]:
    pairs = value[:MOST_POINTS] if isinstance(value, list) else []
    return [(float(p[0]), float(p[1])) for p in pairs if isinstance(p, list) and len(p) == 2 and all(map(_finite, p))]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    """A cell: numbers short, texts cut, nothing for null."""
    if value is None:
        return "–"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value) if isinstance(value, int) else number(value)
    text = str(value)
    return text if len(text) <= MOST_LETTERS else text[:MOST_LETTERS] + "…"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def by_arm(stages: Sequence[ShownStage]) -> dict[str, list[ShownStage]]:
    """The stages of each arm, arms in the order of the cells."""
    found: dict[str, list[ShownStage]] = {}
    for stage in stages:
        found.setdefault(stage.arm, []).append(stage)
    return found
