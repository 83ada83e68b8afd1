"""Training curves: one small chart per family of scalars, arms and seeds of a problem apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .chart import Scale, Svg, polyline, short, ticks
from .load import Json, RunData
from .summary import ProblemSummary
from .words import number

WIDTH, HEIGHT = 260.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 8.0, 10.0, 22.0
MOST_POINTS = 160
_MEMBER = re.compile(r"^(.*?)[._/-]?(\d+)$")

Line = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Family:
    """Scalars whose names differ in a trailing number: {member: one line per seed}."""

    name: str
    members: dict[str, list[Line]]

    @property
    def is_curve(self) -> bool:
        """False for what was reported once, or never changed."""
        return any(len(set(ys)) > 1 for lines in self.members.values() for _, ys in lines)

    def last(self, member: str) -> float:
        """Mean over seeds of the last value."""
        ends = [ys[-1] for _, ys in self.members[member] if ys]
        return sum(ends) / len(ends)


@dataclass(frozen=True)
class ArmCurves:
    """What one arm reported while training: pictures, and what was reported only once."""

    arm: str
    seeds: tuple[int, ...]
    pictures: tuple[tuple[str, Markup, tuple[str, ...]], ...]
    """(family name, SVG, the members' numbers when there are several)"""
    closing: tuple[tuple[str, str], ...]


def arm_curves(run: RunData, problem: ProblemSummary, name: str) -> list[ArmCurves]:
    """All arms of a problem that have scalars."""
    found = []
    for number_, arm in enumerate(problem.arms):
        cells = [c for c in problem.cells_of(arm) if not c.is_base]
        families = read_families([run.scalars(c) for c in cells])
        if families:
            curves = [f for f in families if f.is_curve]
            once = [f for f in families if not f.is_curve]
            pictures = tuple(
                (f.name, Markup(draw(f, f"{name}-{number_}-{i}", arm)), _legend(f))  # escaped part by part
                for i, f in enumerate(curves)
            )
            closing = tuple((m, short(float(f"{f.last(m):.4g}"))) for f in once for m in f.members)
            found.append(ArmCurves(arm, tuple(c.seed for c in cells), pictures, closing))
    return found


def _legend(family: Family) -> tuple[str, ...]:
    """What tells the members of a family apart: their numbers. () for a single scalar."""
    if len(family.members) < 2:
        return ()
    return tuple(member.removeprefix(family.name).lstrip("._/-") for member in family.members)


def read_families(seeds: Sequence[list[Json]]) -> list[Family]:
    """The scalar rows of one arm's seeds, grouped; the loss first, the rest in the order of appearance."""
    members: dict[str, list[Line]] = {}
    for rows in seeds:
        for name, line in _lines(rows).items():
            members.setdefault(name, []).append(line)
    families: dict[str, dict[str, list[Line]]] = {}
    for name, lines in members.items():
        match = _MEMBER.match(name)
        families.setdefault(match.group(1) if match and match.group(1) else name, {})[name] = lines
    ordered = sorted(families.items(), key=lambda item: item[0] != "loss")
    return [Family(name, found) for name, found in ordered]


def _lines(rows: list[Json]) -> dict[str, Line]:
    """{scalar: (steps counted over all stages, values)}, thinned to what a small chart can show."""
    starts: dict[int, int] = {}
    past = 0
    for row in rows:
        stage = int(row.get("stage", 0))
        starts.setdefault(stage, past)
        past = max(past, starts[stage] + int(row.get("step", 0)) + 1)
    found: dict[str, Line] = {}
    for row in rows:
        step = starts[int(row.get("stage", 0))] + int(row.get("step", 0))
        for name, value in row["scalars"].items():
            if isinstance(value, int | float) and abs(value) < float("inf"):
                xs, ys = found.setdefault(str(name), ([], []))
                xs.append(float(step))
                ys.append(float(value))
    return {name: _thin(line) for name, line in found.items()}


def _thin(line: Line) -> Line:
    """At most `MOST_POINTS` points, each the mean of its stretch, so that no peak is picked by chance."""
    xs, ys = line
    size = -(-len(xs) // MOST_POINTS)
    if size <= 1:
        return line
    cuts = range(0, len(xs), size)
    return [_mean(xs[i : i + size]) for i in cuts], [_mean(ys[i : i + size]) for i in cuts]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def draw(family: Family, name: str, arm: str) -> str:
    """One small chart: a colour per member, a line per seed."""
    lines = [line for found in family.members.values() for line in found]
    all_x = [x for xs, _ in lines for x in xs]
    all_y = [y for _, ys in lines for y in ys]
    lo, hi = _range(all_y)
    x = Scale(min(all_x), max(all_x), LEFT, WIDTH - RIGHT)
    y = Scale(lo, hi, HEIGHT - BOTTOM, TOP)
    first = _mean([ys[0] for _, ys in lines])
    last = _mean([ys[-1] for _, ys in lines])
    told = f"{family.name} while training {arm}: {number(first)} at the first step, {number(last)} at the last"
    svg = Svg(WIDTH, HEIGHT, f"{family.name}, {arm}", told, name, "curve")
    for tick in ticks(lo, hi, 3):
        svg.line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "rule")
        svg.text(LEFT - 5, y(tick) + 3.5, short(tick), "tick", "end")
    svg.text(WIDTH - RIGHT, HEIGHT - 6, "step", "tick", "end")
    for tick in ticks(x.lo, x.hi, 4):
        if tick.is_integer() and x(tick) < WIDTH - RIGHT - 34:
            svg.text(x(tick), HEIGHT - 6, short(tick), "tick", "middle")
    for colour, found in enumerate(family.members.values()):
        for xs, ys in found:
            points = polyline([x(v) for v in xs], [y(v) for v in ys])
            svg.add("polyline", points=points, class_=f"series s{colour % 6} curve-line")
    return svg.render()


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The values' range with a little air; a flat line gets some height."""
    lo, hi = min(values), max(values)
    air = 0.05 * (hi - lo) or 0.1 * abs(hi) or 1.0
    return (0.0 if 0 <= lo < 0.3 * hi else lo - air), hi + air
