"""One metric entry of one problem on one model: its values, before and after, across arms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from . import stats
from .judge import ValueInfo, Verdict, judge
from .load import CellData, Entry, Json, RunData
from .ranked import ranked, versus
from .stats import Column, Comparison, Estimate

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
        self.base_seeds: list[list[Json]] = []
        self.after: dict[str, list[list[Json]]] = {}
        self.before: dict[str, list[list[Json]]] = {}
        for cell in cells:
            own = cell.entries.get(entry.name)
            if own is None:
                continue
            before = run.before_rows(cell, own)
            if before and all(before is not rows for rows in self.base_seeds):
                self.base_seeds.append(before)
            rows = run.score_rows(cell, own) if cell is not base_cell else []
            if rows:
                self.after.setdefault(cell.arm, []).append(rows)
                self.before.setdefault(cell.arm, []).append(before)
        self._columns: dict[tuple[str, tuple[int, ...]], Column] = {}
        self._groups: dict[int, dict[str, list[Json]]] = {}

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

    def paired_base(self, info: ValueInfo, arm: str) -> Column | None:
        """The base model's values to stand beside the arm's."""
        before = beside(self.before[arm])
        return self._column(before, info) if before else None

    def _column(self, seeds: Sequence[list[Json]], info: ValueInfo) -> Column:
        """Of lists of rows that this table holds: they are known by their identity."""
        key = (info.name, tuple(id(rows) for rows in seeds))
        if key not in self._columns:
            self._columns[key] = self._make_column(seeds, info)
        return self._columns[key]

    def _make_column(self, seeds: Sequence[list[Json]], info: ValueInfo) -> Column:
        if info.versus:
            return versus(ranked(seeds, info.of), ranked(self.after[ORACLE], info.of), info.versus)
        return column(seeds, info)

    def _measure(self, value: str, arms: list[str], shown: bool, headline: bool) -> Measure:
        info = self.info(value)
        base = self._result(info, self.base_arm, self.base_seeds, [], shown) if self.base_seeds else None
        found = {}
        for arm in (arm for arm in arms if arm in self.after):
            result = self._result(info, arm, self.after[arm], beside(self.before[arm]), shown, headline)
            if result is not None:
                judged = judge(self.entry.want, info, result.compared) if result.compared and headline else None
                found[arm] = replace(result, verdict=judged)
        return Measure(self.entry, info, shown, headline, base, found)

    def _with_chance(self, info: ValueInfo) -> ValueInfo:
        """A metric whose items differ in their chance level gives it as a value of each row."""
        seeds = self.base_seeds or next(iter(self.after.values()), [])
        if info.chance is not None or not info.is_fraction or info.better != "higher" or not seeds:
            return info
        level = stats.estimate(stats.sums(seeds[:1], "chance"))
        return replace(info, chance=level.mean) if level else info

    def _result(
        self,
        info: ValueInfo,
        arm: str,
        after: Sequence[list[Json]],
        before: Sequence[list[Json]],
        with_groups: bool = False,
        draws: bool = False,
    ) -> Result | None:
        """The number of some rows, beside that of the base model's `before` (none: compared with nothing)."""
        data = self._column(after, info)
        number = stats.estimate(data, info.aggregate)
        if number is None:
            return None
        base = self._column(before, info) if before else None
        compared = None
        if base is not None:
            compared = stats.compare(data, base, info.aggregate, info.chance, draws=draws)
        groups = {}
        for name in group_names(after, info) if with_groups else ():
            inner = self._result(info, arm, self._parts(after, name), self._parts(before, name))
            if inner is not None:
                groups[name] = inner
        return Result(self.entry, info, arm, len(data.units), data.n_seeds, number, compared, groups=groups)

    def _parts(self, seeds: Sequence[list[Json]], group: str) -> list[list[Json]]:
        """The rows of a group. A unit may have rows in several groups, and counts in each with those alone."""
        for rows in seeds:
            if id(rows) not in self._groups:
                parts = self._groups[id(rows)] = {}
                for row in rows:
                    parts.setdefault(str(row.get("group") or ""), []).append(row)
        return [self._groups[id(rows)].setdefault(group, []) for rows in seeds]


def beside(seeds: Sequence[list[Json]]) -> Sequence[list[Json]]:
    """The base model's rows for the seeds of an arm: once if they are the same for all; [] if one lacks them."""
    if not all(seeds):
        return []
    return seeds[:1] if all(rows is seeds[0] for rows in seeds) else seeds


def column(seeds: Sequence[list[Json]], info: ValueInfo) -> Column:
    """One value of some rows, seed by seed, in the form that its number is made of."""
    return ranked(seeds, info.name) if info.aggregate == "auc" else stats.sums(seeds, info.name)


def group_names(seeds: Sequence[list[Json]], info: ValueInfo) -> list[str]:
    """The groups that have the value, if there are two at least and it is a mean over rows."""
    if info.versus or info.aggregate == "auc":
        return []
    rows = (row for seed in seeds for row in seed if info.name in (row.get("values") or {}))
    names = sorted({str(row["group"]) for row in rows if row.get("group")})
    return names if len(names) > 1 else []
