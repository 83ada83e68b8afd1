"""Numbers that are made of several metric entries of a problem, of their headline values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import hmean

from . import stats
from .judge import ValueInfo, judge
from .load import Entry
from .measures import EntryTable, Measure, Result
from .stats import Array, Column, Resampled

Member = tuple[ValueInfo, Column]


def combined(entry: Entry, tables: Sequence[EntryTable], base_arm: str, arms: Sequence[str]) -> list[Measure]:
    """The one measure of an entry that combines others; none when no arm has a value in each of them."""
    by_name = {table.entry.name: table for table in tables}
    members = [by_name[name] for name in entry.options.get("of") or () if name in by_name]
    value = next(iter(entry.values), "")
    if not value or len(members) < len(entry.options.get("of") or ()):
        return []
    info = ValueInfo.from_json(value, entry.values[value])
    found = {arm: result for arm in arms if (result := _arm(entry, info, members, arm)) is not None}
    base = _base(entry, info, members, base_arm)
    return [Measure(entry, info, True, True, base, found)] if base or found else []


def _base(entry: Entry, info: ValueInfo, members: Sequence[EntryTable], arm: str) -> Result | None:
    infos = [table.info(table.headline) for table in members]
    columns = [table.base_column(one) for table, one in zip(members, infos, strict=True)]
    parts = [(one, column) for one, column in zip(infos, columns, strict=True) if column is not None and column.units]
    estimate = _made(entry, parts).estimate() if len(parts) == len(members) else None
    if estimate is None:
        return None
    return Result(entry, info, arm, _n(parts), max(column.n_seeds for _, column in parts), estimate)


def _arm(entry: Entry, info: ValueInfo, members: Sequence[EntryTable], arm: str) -> Result | None:
    after: list[Member] = []
    before: list[Member] = []
    for table in members:
        one = table.info(table.headline)
        mine = table.arm_column(one, arm)
        base = table.paired_base(one, arm) if mine is not None else None
        if mine is not None and base is not None:
            mine, base = stats.pair(mine, base)
            before.append((one, base))
        if mine is not None and mine.units:
            after.append((one, mine))
    number = _made(entry, after) if len(after) == len(members) else None
    estimate = number.estimate() if number is not None else None
    if number is None or estimate is None:
        return None
    compared = None
    if len(before) == len(members):
        compared = stats.comparison(_n(after), number, _made(entry, before), info.chance, draws=True)
    verdict = judge(entry.want, info, compared) if compared is not None else None
    return Result(entry, info, arm, _n(after), max(column.n_seeds for _, column in after), estimate, compared, verdict)


def _balanced(numbers: Array) -> Array:
    """The first of two values times the balance of the second: 1 at one half, 0 at 0 and at 1."""
    first, second = numbers
    return first * np.minimum(second, 1 - second) / 0.5


WAYS: Mapping[str, Callable[[Array], Array]] = {"harmonic": hmean, "balanced": _balanced}
"""`MetricSpec.combines` -> what makes one number of an array [members, ...]"""


def _made(entry: Entry, parts: Sequence[Member]) -> Resampled:
    numbers = [column.resampled(info.aggregate) for info, column in parts]
    way = WAYS[entry.combines]
    point, values = way(np.array([n.point for n in numbers])), way(np.stack([n.values for n in numbers]))
    return Resampled(float(point), values, any(n.alone for n in numbers))


def _n(parts: Sequence[Member]) -> int:
    return sum(len(column.units) for _, column in parts)
