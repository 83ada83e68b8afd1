"""One metric entry of one problem on one model: its values, before and after, across arms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from . import stats
from .judge import ValueInfo, Verdict, judge
from .load import CellData, Entry, Json, RunData
from .ranked import ranked, versus
from .stats import Column, Comparison, Estimate, Sums

MAX_GROUPS = 80
DEFAULT_SHOWN = 3
ORACLE = "oracle"
"""name of the arm that others are compared with: a model that never saw what is to be forgotten"""


@dataclass(frozen=True)
class Result:
    """One value of one metric entry under one arm. For the untouched model `compared` is None.

    `n` counts resampling units, `seeds` the cells behind it. `groups`: group -> the same, for shown values.
    """

    entry: Entry
    info: ValueInfo
    arm: str
    n: int
    seeds: int
    after: Estimate
    compared: Comparison | None = None
    verdict: Verdict | None = None
    groups: dict[str, Result] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """One value of one entry, across arms. `shown`: in the summary table; `headline`: the one that is judged."""

    entry: Entry
    info: ValueInfo
    shown: bool
    headline: bool
    base: Result | None
    arms: dict[str, Result]

    @property
    def label(self) -> str:
        return self.entry.name if self.entry.name == self.info.name else f"{self.entry.name} {self.info.name}"


class EntryTable:
    """The rows of one metric entry of one problem, by arm and seed."""

    def __init__(
        self, run: RunData, entry: Entry, base_cell: CellData | None, cells: Sequence[CellData], base_arm: str
    ) -> None:
        self.entry = entry
        self.base_arm = base_arm
        self.after: dict[str, list[list[Json]]] = {}
        self.before: dict[str, list[list[Json]]] = {}
        home = base_cell.entries.get(entry.name) if base_cell else None
        fallback = (run.base_rows(home) or run.score_rows(base_cell, home)) if base_cell and home else []
        known = {home.key: fallback} if home and fallback else {}
        for cell in cells:
            own = cell.entries.get(entry.name)
            if cell is base_cell or own is None:
                continue
            if own.key not in known and (shared := run.base_rows(own)):
                known[own.key] = shared
            rows = run.score_rows(cell, own)
            if rows:
                self.after.setdefault(cell.arm, []).append(rows)
                self.before.setdefault(cell.arm, []).append(known.get(own.key, fallback))
        self.base_seeds = list(known.values())
        self._known: dict[tuple[str, tuple[int, ...]], Column] = {}

    def measures(self, arms: Iterable[str]) -> list[Measure]:
        names = self._value_names()
        shown = [n for n in self.entry.show if n in names] or names[:DEFAULT_SHOWN]
        ordered = shown + [n for n in names if n not in shown]
        # what is to be judged by its distance from the oracle is not judged by another value where there is no oracle
        relative = (self.entry.values.get(self.headline) or {}).get("versus")
        headline = self.headline if relative or not shown else shown[0]
        return [self._measure(n, list(arms), n in shown, n == headline) for n in ordered]

    @property
    def headline(self) -> str:
        """The value that the plan judges; "" when the run does not say."""
        return next(iter(self.entry.show or self.entry.values), "")

    def _value_names(self) -> list[str]:
        """Values that the rows have or that can be made of them, in the order of the metric's spec."""
        present: dict[str, None] = {}
        for rows in [*self.base_seeds, *(rows for seeds in self.after.values() for rows in seeds)]:
            for row in rows:
                present |= dict.fromkeys(row.get("values") or {})
        if ORACLE in self.after:
            present |= {n: None for n, v in self.entry.values.items() if v.get("versus") and v.get("of") in present}
        return [n for n in self.entry.values if n in present] + [n for n in present if n not in self.entry.values]

    def info(self, value: str) -> ValueInfo:
        return self._with_chance(ValueInfo.from_json(value, self.entry.values.get(value) or {}))

    def base_column(self, info: ValueInfo) -> Column | None:
        return self._column(self.base_seeds, info) if self.base_seeds else None

    def arm_column(self, info: ValueInfo, arm: str) -> Column | None:
        return self._column(self.after[arm], info) if arm in self.after else None

    def _column(self, seeds: Sequence[list[Json]], info: ValueInfo) -> Column:
        key = (info.name, tuple(id(rows) for rows in seeds))
        if key not in self._known:
            self._known[key] = self._make_column(seeds, info)
        return self._known[key]

    def _make_column(self, seeds: Sequence[list[Json]], info: ValueInfo) -> Column:
        if info.versus:
            return versus(ranked(seeds, info.of), ranked(self.after[ORACLE], info.of), info.versus)
        return ranked(seeds, info.name) if info.aggregate == "auc" else stats.sums(seeds, info.name)

    def _measure(self, value: str, arms: list[str], shown: bool, headline: bool) -> Measure:
        info = self.info(value)
        base = self._base_result(info, self.base_column(info), shown)
        found = {}
        for arm in arms:
            if arm in self.after:
                result = self._arm_result(info, arm, shown, headline)
                if result is not None:
                    found[arm] = result
        return Measure(self.entry, info, shown, headline, base, found)

    def _with_chance(self, info: ValueInfo) -> ValueInfo:
        """A metric whose items differ in their chance level gives it as a value of each row."""
        seeds = self.base_seeds or next(iter(self.after.values()), [])
        if info.chance is not None or not info.is_fraction or info.better != "higher" or not seeds:
            return info
        level = stats.estimate(stats.sums(seeds[:1], "chance"))
        return replace(info, chance=level.mean) if level else info

    def _base_result(self, info: ValueInfo, data: Column | None, with_groups: bool) -> Result | None:
        after = stats.estimate(data, info.aggregate) if data is not None else None
        if data is None or after is None:
            return None
        groups = {}
        for group, chosen in _groups(data) if with_groups else ():
            part = data.take(chosen)
            inner = stats.estimate(part, info.aggregate)
            if inner is not None:
                groups[group] = Result(self.entry, info, self.base_arm, len(part.units), len(self.base_seeds), inner)
        seeds = len(self.base_seeds)
        return Result(self.entry, info, self.base_arm, len(data.units), seeds, after, groups=groups)

    def _arm_result(self, info: ValueInfo, arm: str, shown: bool, headline: bool) -> Result | None:
        data = self._column(self.after[arm], info)
        after = stats.estimate(data, info.aggregate)
        if after is None:
            return None
        base = self.paired_base(info, arm)
        compared = None
        if base is not None:
            compared = stats.compare(data, base, info.aggregate, info.chance, draws=headline)
        verdict = judge(self.entry.want, info, compared) if compared is not None and headline else None
        groups = {}
        for group, chosen in _groups(data) if shown else ():
            inner = self._group_result(info, arm, data.take(chosen), base)
            if inner is not None:
                groups[group] = inner
        return Result(self.entry, info, arm, len(data.units), data.n_seeds, after, compared, verdict, groups)

    def _group_result(self, info: ValueInfo, arm: str, part: Column, base: Column | None) -> Result | None:
        after = stats.estimate(part, info.aggregate)
        if after is None:
            return None
        compared = stats.compare(part, base, info.aggregate, info.chance) if base is not None else None
        return Result(self.entry, info, arm, len(part.units), part.n_seeds, after, compared)

    def paired_base(self, info: ValueInfo, arm: str) -> Column | None:
        """The base model's values to stand beside the arm's: one seed if it was scored once, else seed by seed."""
        seeds = self.before[arm]
        if not all(seeds):
            return None
        same = all(rows is seeds[0] for rows in seeds)
        return self._column(seeds[:1] if same else seeds, info)


def _groups(data: Column) -> Iterable[tuple[str, np.ndarray]]:
    """(group, its units as indices) when there are at least two named groups that are values of their own."""
    names = sorted({g for g in data.groups if g})
    if len(names) < 2 or not isinstance(data, Sums):
        return []
    labels = np.array(data.groups, dtype=object)
    return [(name, np.flatnonzero(labels == name)) for name in names[:MAX_GROUPS]]
