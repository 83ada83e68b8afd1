"""Every number of a run: per problem, model, metric value and arm, with interval, change and verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..store import write_json
from . import stats
from .judge import ValueInfo, Verdict, judge
from .load import CellData, Entry, Json, RunData, groups_of
from .stats import Comparison, Estimate, Sums

MAX_GROUPS = 80
DEFAULT_SHOWN = 3


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


@dataclass(frozen=True)
class ProblemSummary:
    """One problem on one model: its measures in the plan's order, and the arms in the order of their cells."""

    problem: str
    model: str
    about: str
    base_arm: str
    arms: tuple[str, ...]
    cells: tuple[CellData, ...]
    measures: tuple[Measure, ...]

    @property
    def headlines(self) -> list[Measure]:
        return [m for m in self.measures if m.headline]

    def cells_of(self, arm: str) -> list[CellData]:
        return [c for c in self.cells if c.arm == arm]


def summarize(run: RunData) -> list[ProblemSummary]:
    """All problems of a run."""
    return [_problem(run, problem, model, cells) for problem, model, cells in groups_of(run.cells)]


def _problem(run: RunData, problem: str, model: str, cells: Sequence[CellData]) -> ProblemSummary:
    base_cell = next((c for c in cells if c.is_base), None)
    arms = dict.fromkeys(c.arm for c in cells if c is not base_cell)
    base_arm = base_cell.arm if base_cell else "base"
    entries: dict[str, Entry] = {}
    for cell in cells:
        for name, entry in cell.entries.items():
            entries.setdefault(name, entry)
    measures: list[Measure] = []
    for entry in entries.values():
        measures += _Table(run, entry, base_cell, cells, base_arm).measures(list(arms))
    about = cells[0].cell.get("summary") or {}
    text = about.get("summary") or about.get("problem") if isinstance(about, dict) else about
    return ProblemSummary(problem, model, str(text or ""), base_arm, tuple(arms), tuple(cells), tuple(measures))


class _Table:
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
        self._known: dict[tuple[str, tuple[int, ...]], Sums] = {}

    def measures(self, arms: Iterable[str]) -> list[Measure]:
        names = self._value_names()
        shown = [n for n in self.entry.show if n in names] or names[:DEFAULT_SHOWN]
        ordered = shown + [n for n in names if n not in shown]
        return [self._measure(n, list(arms), n in shown, n == shown[0]) for n in ordered]

    def _value_names(self) -> list[str]:
        """Values that the rows have, in the order of the metric's spec."""
        present: dict[str, None] = {}
        for rows in [*self.base_seeds, *(rows for seeds in self.after.values() for rows in seeds)]:
            for row in rows:
                present |= dict.fromkeys(row.get("values") or {})
        return [n for n in self.entry.values if n in present] + [n for n in present if n not in self.entry.values]

    def _sums(self, seeds: Sequence[list[Json]], value: str) -> Sums:
        key = (value, tuple(id(rows) for rows in seeds))
        if key not in self._known:
            self._known[key] = stats.sums(seeds, value)
        return self._known[key]

    def _measure(self, value: str, arms: list[str], shown: bool, headline: bool) -> Measure:
        info = self._with_chance(ValueInfo.from_json(value, self.entry.values.get(value) or {}))
        base_sums = self._sums(self.base_seeds, value) if self.base_seeds else None
        base = self._base_result(info, base_sums, shown)
        found = {}
        for arm in arms:
            if arm in self.after:
                result = self._arm_result(info, arm, value, shown, headline)
                if result is not None:
                    found[arm] = result
        return Measure(self.entry, info, shown, headline, base, found)

    def _with_chance(self, info: ValueInfo) -> ValueInfo:
        """A metric whose items differ in their chance level gives it as a value of each row."""
        seeds = self.base_seeds or next(iter(self.after.values()), [])
        if info.chance is not None or not info.is_fraction or info.better != "higher" or not seeds:
            return info
        level = stats.estimate(self._sums(seeds[:1], "chance"))
        return replace(info, chance=level.mean) if level else info

    def _base_result(self, info: ValueInfo, data: Sums | None, with_groups: bool) -> Result | None:
        after = stats.estimate(data, info.aggregate) if data is not None else None
        if data is None or after is None:
            return None
        groups = {}
        for group, keep in _groups(data) if with_groups else ():
            part = data.only(keep)
            inner = stats.estimate(part, info.aggregate)
            if inner is not None:
                groups[group] = Result(self.entry, info, self.base_arm, part.n_units, len(self.base_seeds), inner)
        seeds = len(self.base_seeds)
        return Result(self.entry, info, self.base_arm, data.n_units, seeds, after, groups=groups)

    def _arm_result(self, info: ValueInfo, arm: str, value: str, shown: bool, headline: bool) -> Result | None:
        data = self._sums(self.after[arm], value)
        after = stats.estimate(data, info.aggregate)
        if after is None:
            return None
        base = self._paired_base(arm, value)
        compared = None
        if base is not None:
            compared = stats.compare(data, base, info.aggregate, info.chance, draws=headline)
        verdict = judge(self.entry.want, info, compared) if compared is not None and headline else None
        groups = {}
        for group, keep in _groups(data) if shown else ():
            inner = self._group_result(info, arm, data.only(keep), base)
            if inner is not None:
                groups[group] = inner
        seeds = data.total.shape[0]
        return Result(self.entry, info, arm, data.n_units, seeds, after, compared, verdict, groups)

    def _group_result(self, info: ValueInfo, arm: str, part: Sums, base: Sums | None) -> Result | None:
        after = stats.estimate(part, info.aggregate)
        if after is None:
            return None
        compared = stats.compare(part, base, info.aggregate, info.chance) if base is not None else None
        return Result(self.entry, info, arm, part.n_units, part.total.shape[0], after, compared)

    def _paired_base(self, arm: str, value: str) -> Sums | None:
        """The base model's sums to stand beside the arm's: one seed if it was scored once, else seed by seed."""
        seeds = self.before[arm]
        if not all(seeds):
            return None
        same = all(rows is seeds[0] for rows in seeds)
        return self._sums(seeds[:1] if same else seeds, value)


def _groups(data: Sums) -> Iterable[tuple[str, np.ndarray]]:
    """(group, mask [U]) when there are at least two named groups."""
    names = sorted({g for g in data.groups if g})
    if len(names) < 2:
        return []
    labels = np.array(data.groups, dtype=object)
    return [(name, labels == name) for name in names[:MAX_GROUPS]]


def to_json(run: RunData, problems: Sequence[ProblemSummary]) -> Json:
    """The content of results/summary.json."""
    results = [_result_json(p, m, r) for p in problems for m in p.measures for r in _all(m)]
    from .scores import FORMULA, arm_scores, score_json  # it reads summaries

    scores = [score_json(p, score) for p in problems for score in arm_scores(p)]
    return {
        "summary": 1,
        "run": run.name,
        "results": results,
        "scores": scores,
        "score_formula": FORMULA,
        "cells": [_cell_json(c) for c in run.cells],
    }


def _all(measure: Measure) -> list[Result]:
    return ([measure.base] if measure.base else []) + list(measure.arms.values())


def _result_json(problem: ProblemSummary, measure: Measure, result: Result) -> Json:
    entry = measure.entry
    return {
        "problem": problem.problem,
        "model": problem.model,
        "arm": result.arm,
        "metric": entry.name,
        "use": entry.use,
        "value": measure.info.name,
        "want": entry.want,
        "headline": measure.headline,
        **_numbers(result),
        "verdict": {"state": result.verdict.state, "word": result.verdict.word} if result.verdict else None,
        "groups": {name: _numbers(inner) for name, inner in result.groups.items()},
    }


def _numbers(result: Result) -> Json:
    compared = result.compared
    return {
        "n": result.n,
        "seeds": result.seeds,
        **result.after.to_json(),
        "paired": compared.n if compared else None,
        "base": compared.before.to_json() if compared else None,
        "change": compared.change.to_json() if compared else None,
        "relative": compared.relative.to_json() if compared and compared.relative else None,
    }


def _cell_json(cell: CellData) -> Json:
    head = cell.cell
    return {
        "id": head.get("id"),
        "folder": cell.name,
        "problem": cell.problem,
        "model": cell.model,
        "arm": cell.arm,
        "seed": cell.seed,
        "state": cell.state,
        "seconds": cell.seconds,
        "cost": cell.folder.cost or None,
        "error": cell.status.get("error"),
    }


def write_summary(run_path: Path) -> Path:
    """Compute and write results/summary.json (atomically); returns its path."""
    run = RunData(run_path)
    path = run_path / "results" / "summary.json"
    write_json(path, to_json(run, summarize(run)))
    return path
