"""What attacks bring back: per attack and metric, how much of what was forgotten returns, and how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from ..specs import AttackPoint
from ..study import Attacked
from . import stats
from .chart import Scale, Svg, polyline, short, ticks
from .judge import ValueInfo
from .load import Json, RunData
from .measures import Measure, beside, column
from .stats import Estimate, Resampled
from .summary import ProblemSummary
from .words import number, percent

WIDTH, HEIGHT = 460.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 16.0, 14.0, 38.0
HALF = 0.5


@dataclass(frozen=True)
class Reading:
    """The value at one point of an attack. `back`: the share of what was forgotten that has returned; `moved`: how far
    the attack took the value the way back."""

    point: AttackPoint
    value: Estimate
    back: Estimate | None
    moved: float

    @property
    def rank(self) -> tuple[bool, float]:
        """The larger, the worse. Where nothing was clearly forgotten, the way back itself tells readings apart."""
        return self.back is not None, self.back.mean if self.back else self.moved


@dataclass(frozen=True)
class ArmUnderAttack:
    """One arm. `worst`: the reading of the highest rank. `half`: per seed that forgot something and was attacked, when
    half of that was back."""

    arm: str
    unlearned: Estimate
    readings: tuple[Reading, ...]
    worst: Reading
    half: tuple[Half, ...]


@dataclass(frozen=True)
class Half:
    """`step`: the first (between two readings, on a straight line) at which half of the loss is back under any of the
    attacker's settings; None = not up to the step `last`, to which all of them were read."""

    step: float | None
    last: int


@dataclass(frozen=True)
class AttackTable:
    """One attack on one measure, across arms. `steps`: whether its points lie on a path."""

    attack: str
    measure: Measure
    base: Estimate
    arms: tuple[ArmUnderAttack, ...]
    picture: Markup = field(default_factory=Markup)

    @property
    def steps(self) -> bool:
        return any(r.point.at for arm in self.arms for r in arm.readings)

    @property
    def last(self) -> int:
        """The last step that is scored."""
        return max(r.point.at for arm in self.arms for r in arm.readings)


def attack_tables(run: RunData, problem: ProblemSummary, name: str) -> list[AttackTable]:
    """Every attack of a problem on every headline that it scored, as far as it has come."""
    uses: dict[str, Json] = {}
    for cell in problem.cells:
        for attack in cell.cell.get("attacks") or ():
            uses.setdefault(str(attack.get("name")), attack)
    tables: list[AttackTable] = []
    for attack in uses.values():
        for measure in problem.headlines:
            if measure.entry.name in attack.get("scores", ()) and measure.base is not None and not measure.info.versus:
                arms = [found for arm in problem.arms if (found := _arm(run, problem, arm, attack, measure))]
                if arms:
                    table = AttackTable(str(attack["name"]), measure, measure.base.after, tuple(arms))
                    picture = _draw(table, problem.arms, f"{name}-{len(tables)}") if table.steps else ""
                    tables.append(replace(table, picture=Markup(picture)))
    return tables


def _arm(run: RunData, problem: ProblemSummary, arm: str, attack: Json, measure: Measure) -> ArmUnderAttack | None:
    entry, info = measure.entry, measure.info
    seeds = []  # (before, after, the cell) of those that have been scored
    for cell in problem.cells_of(arm):
        own = cell.entries.get(entry.name)
        if own is None or cell.is_base:
            continue
        before, after = run.before_rows(cell, own), run.score_rows(cell, own)
        if before and after:
            seeds.append((before, after, cell))
    readings = []
    paths: list[list[tuple[AttackPoint, list[Json]]]] = [[] for _ in seeds]
    for told in attack["points"]:
        point = AttackPoint(**told)
        name = Attacked(str(attack["name"]), point, entry.name).name
        rows = [run.attacked_rows(cell, name) for _, _, cell in seeds]
        for path, found in zip(paths, rows, strict=True):
            path += [(point, found)] if found else []
        there = [(before, after, found) for (before, after, _), found in zip(seeds, rows, strict=True) if found]
        reading = _reading(point, there, info, entry.want) if there else None
        readings += [reading] if reading is not None else []
    if not readings:
        return None
    unlearned = stats.estimate(column([after for _, after, _ in seeds], info), info.aggregate)
    if unlearned is None:
        return None
    worst = max(readings, key=lambda reading: reading.rank)
    halves = [
        _half(info, entry.want, before, after, path) for (before, after, _), path in zip(seeds, paths, strict=True)
    ]
    return ArmUnderAttack(arm, unlearned, tuple(readings), worst, tuple(h for h in halves if h is not None))


def _reading(
    point: AttackPoint, seeds: Sequence[tuple[list[Json], list[Json], list[Json]]], info: ValueInfo, want: str
) -> Reading | None:
    """From (before, after, attacked) rows per seed: all three on the items they share, drawn alike."""
    before, after, attacked = (list(rows) for rows in zip(*seeds, strict=True))
    base, gone, back = (column(rows, info) for rows in (beside(before), after, attacked))
    gone, base = stats.pair(gone, base)
    back, base = stats.pair(back, base)
    gone, base = stats.pair(gone, base)
    if not back.units:
        return None
    b, g, a = (one.resampled(info.aggregate) for one in (base, gone, back))
    value = a.estimate()
    if value is None:
        return None
    moved = (a.point - g.point) * _way_back(want, b.point - g.point)
    return Reading(point, value, _share(b, g, a, want), float(moved))


def _way_back(want: str, lost: float) -> float:
    """1 up, -1 down: against what the plan wants; where it wants no way, towards the untouched model (`lost`)."""
    return {"lower": 1.0, "higher": -1.0}.get(want, float(np.sign(lost)))


def _share(base: Resampled, gone: Resampled, back: Resampled, want: str) -> Estimate | None:
    """(attacked - unlearned) / (base - unlearned); None where nothing was clearly forgotten."""
    lost = stats.interval(base.point - gone.point, base.values - gone.values, base.alone and gone.alone)
    way = _way_back(want, base.point - gone.point)
    if lost is None or not (lost.above(0) if way > 0 else lost.below(0)):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        return stats.interval(
            (back.point - gone.point) / (base.point - gone.point),
            (back.values - gone.values) / (base.values - gone.values),
        )


def _half(
    info: ValueInfo,
    want: str,
    before: list[Json],
    after: list[Json],
    attacked: Sequence[tuple[AttackPoint, list[Json]]],
) -> Half | None:
    """For one seed: when half of what was lost is back, the earliest over the attacker's settings."""

    def value(rows: list[Json]) -> float:
        return column([rows], info).resampled(info.aggregate).point

    base, gone = value(before), value(after)
    lost = base - gone
    if not attacked or not lost * _way_back(want, lost) > 0:
        return None
    paths: dict[str, list[tuple[float, float]]] = {}
    for point, rows in attacked:
        share = (value(rows) - gone) / lost
        paths.setdefault(point.strength, [(0.0, 0.0)]).append((float(point.at), share))
    found = [step for path in paths.values() if (step := _crossing(path)) is not None]
    return Half(min(found, default=None), int(min(path[-1][0] for path in paths.values())))


def _crossing(path: Sequence[tuple[float, float]]) -> float | None:
    for (x0, y0), (x1, y1) in pairwise(path):
        if y1 >= HALF:
            return x0 + (HALF - y0) / (y1 - y0) * (x1 - x0)
    return None


def worst_path(arm: ArmUnderAttack) -> list[tuple[int, float]]:
    """(step, value) from the unlearned model on, at each step the setting that has most back."""
    best: dict[int, Reading] = {}
    for reading in arm.readings:
        known = best.get(reading.point.at)
        if known is None or reading.rank > known.rank:
            best[reading.point.at] = reading
    return [(0, arm.unlearned.mean), *((at, best[at].value.mean) for at in sorted(best))]


def _draw(table: AttackTable, arms: Sequence[str], name: str) -> str:
    """Value against the attacker's steps, a line per arm, the base model as a level."""
    paths = {arm.arm: worst_path(arm) for arm in table.arms}
    ys = [table.base.mean, *(y for path in paths.values() for _, y in path)]
    lo, hi = min(ys), max(ys)
    air = 0.06 * (hi - lo) or 0.1
    x = Scale(0, table.last, LEFT, WIDTH - RIGHT)
    y = Scale(0.0 if 0 <= lo < 0.3 * hi else lo - air, hi + air, HEIGHT - BOTTOM, TOP)
    told = "; ".join(f"{arm}: {path[0][1]:.3g} before, {path[-1][1]:.3g} at the end" for arm, path in paths.items())
    svg = Svg(WIDTH, HEIGHT, f"{table.measure.label} under {table.attack}", told, name, "curve")
    for tick in ticks(y.lo, y.hi, 4):
        svg.line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "rule")
        svg.text(LEFT - 6, y(tick) + 3.5, short(tick), "tick", "end")
    for tick in ticks(0, table.last, 6):
        svg.text(x(tick), HEIGHT - BOTTOM + 16, short(tick), "tick", "middle")
    svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "steps of the attacker", "axis", "middle")
    svg.line(LEFT, y(table.base.mean), WIDTH - RIGHT, y(table.base.mean), "rule strong")
    svg.text(WIDTH - RIGHT, y(table.base.mean) - 5, "untouched", "label muted", "end")
    for arm, path in paths.items():
        points = polyline([x(at) for at, _ in path], [y(value) for _, value in path])
        svg.add("polyline", points=points, class_=f"series s{arms.index(arm) % 6} curve-line")
    return svg.render()


def half_text(arm: ArmUnderAttack) -> str:
    """'12, 15, > 64': steps to half, by seed; '–' when there is none to tell of."""
    return ", ".join(f"{h.step:.3g}" if h.step is not None else f"> {h.last}" for h in arm.half) or "–"


def attack_lines(run: RunData, problem: ProblemSummary) -> list[str]:
    """One line per attack, measure and arm for the terminal."""
    lines = []
    for table in attack_tables(run, problem, ""):
        lines.append(f"\n{table.attack} on {table.measure.label}, {number(table.base.mean, 3)} untouched:")
        for arm in table.arms:
            back = f", {percent(arm.worst.back.mean)} of what was forgotten" if arm.worst.back else ""
            half = f"; half is back after {half_text(arm)} steps" if table.steps and arm.worst.back else ""
            told = f"{number(arm.unlearned.mean, 3)} -> {number(arm.worst.value.mean, 3)} at worst"
            lines.append(f"  {arm.arm}: {told} ({arm.worst.point.name}){back}{half}")
    return lines


def attacks_json(problem: ProblemSummary, tables: Sequence[AttackTable]) -> list[Json]:
    """For summary.json."""
    return [
        {
            "problem": problem.problem,
            "model": problem.model,
            "arm": arm.arm,
            "attack": table.attack,
            "metric": table.measure.entry.name,
            "value": table.measure.info.name,
            "base": table.base.to_json(),
            "unlearned": arm.unlearned.to_json(),
            "steps_to_half": [h.step for h in arm.half] if table.steps else None,
            "worst": reading_json(arm.worst),
            "readings": [reading_json(reading) for reading in arm.readings],
        }
        for table in tables
        for arm in table.arms
    ]


def reading_json(reading: Reading) -> Mapping[str, object]:
    """One reading as plain data."""
    return {
        "strength": reading.point.strength,
        "at": reading.point.at,
        "value": reading.value.to_json(),
        "back": reading.back.to_json() if reading.back else None,
    }


__all__ = ["ArmUnderAttack", "AttackTable", "attack_lines", "attack_tables", "attacks_json", "half_text"]
