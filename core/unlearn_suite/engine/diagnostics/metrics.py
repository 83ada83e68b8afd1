"""The problem's own metrics while a stage trains: what they say, and the two failures that only they can show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, variance
from typing import Any, Protocol

from torch import Tensor

from ...specs import GROUP_BEHIND, GROUP_LEAST, JUDGES_APART, ValueSpec
from ..objective import Scalars
from ..shards import whole_tree
from .detector import Alarm, Bench, Detector

Rows = Sequence[Mapping[str, Any]]
"""rows of scores as JSON: {"id", "values", "weight", "group"}"""

APART = Alarm("two judges disagree on what changed", at_most=JUDGES_APART)
GROUP = Alarm("one group of what is kept suffers more than the others", at_most=GROUP_BEHIND)


@dataclass(frozen=True)
class Entry:
    """A metric entry of the problem. `key` names all that its scores depend on beside the weights; `show`: the values
    that are read."""

    key: str
    want: str
    show: Sequence[str]
    values: Mapping[str, ValueSpec]


class Metrics(Protocol):
    """What the host scores for the detector. No objective sees it: a stage cannot learn from what metrics read."""

    def entry(self, name: str) -> Entry:
        """The entry of this name."""

    def rows(self, name: str, examples: int | None, originals: Mapping[str, Tensor]) -> Rows:
        """Scores of the model as it is, on the entry's first `examples` by hash (None: all). `originals`: the values of
        what the stage trains when it began. [] where the metric fails on the model, which is warned of."""


class OwnMetrics(Detector):
    """Entries of the problem's `metrics`, on the same examples every time: before training, every `sample_every` steps
    and at the end. Beside each value, with d its change since the start:

        apart = |d - d_second|, where the metric has a second judge of the value (`ValueSpec.second`)
        group = max over groups g of (fall_g - fall_others) - 2 SE, of a value in [0, 1] that is to be kept

    `fall` is the mean change for the worse of the rows of a group (a subject, say) of five rows or more, and SE the
    standard error of the difference: a group must fall behind beyond chance.
    """

    def __init__(self, host: Metrics | None, names: Sequence[str]) -> None:
        self._host = host
        self._names = names if host else ()
        self._before: dict[str, Rows] = {}
        self.alarms: dict[str, Alarm] = {}

    def start(self, bench: Bench) -> None:
        for name in self._names:
            key = [self._entry(name).key, bench.options.metric_examples]
            self._before[name] = bench.ctx.services.memo("metrics", key, partial(self._rows, bench, name))

    def is_due(self, bench: Bench, done: int) -> bool:
        return bench.samples_after(done)

    def measure(self, bench: Bench) -> Scalars:
        return self.close(bench) if bench.ctx.train.steps else {}  # without a step the end has read it

    def close(self, bench: Bench) -> Scalars:
        found: Scalars = {}
        for name in self._names:
            entry, before, now = self._entry(name), self._before[name], self._rows(bench, name)
            for value in entry.show:
                spec = entry.values[value]
                if spec.versus or spec.aggregate == "auc":
                    continue
                called = f"diag_{name}_{value}".replace("-", "_")
                found |= self._value(called, entry, value, before, now)
        return found

    def _value(self, called: str, entry: Entry, value: str, before: Rows, now: Rows) -> Scalars:
        spec = entry.values[value]
        found: Scalars = {}
        if (number := aggregate(now, value, spec)) is None:
            return found
        found[called] = number
        first, second = change(before, now, value, spec), None
        if spec.second:
            second = change(before, now, spec.second, entry.values[spec.second])
        if first is not None and second is not None:
            self.alarms[f"{called}_apart"] = APART
            found[f"{called}_apart"] = abs(first - second)
        if entry.want == "keep" and spec.better and (spec.lowest, spec.highest) == (0, 1):
            behind = furthest_behind(before, now, value, 1 if spec.better == "higher" else -1)
            if behind is not None:
                self.alarms[f"{called}_group"] = GROUP
                found[f"{called}_group"] = behind
        return found

    def _entry(self, name: str) -> Entry:
        assert self._host is not None
        return self._host.entry(name)

    def _rows(self, bench: Bench, name: str) -> Rows:
        assert self._host is not None
        return self._host.rows(name, bench.options.metric_examples, whole_tree(bench.ctx.views.original))


def aggregate(rows: Rows, value: str, spec: ValueSpec) -> float | None:
    """The rows' weighted mean, or its exponential; None where no row has the value."""
    having = [(row["values"][value], row["weight"]) for row in rows if value in row["values"]]
    total = sum(weight for _, weight in having)
    if not total:
        return None
    mean = sum(number * weight for number, weight in having) / total
    return math.exp(min(mean, 700.0)) if spec.aggregate == "exp-mean" else float(mean)


def change(before: Rows, now: Rows, value: str, spec: ValueSpec) -> float | None:
    first, last = aggregate(before, value, spec), aggregate(now, value, spec)
    return None if first is None or last is None else last - first


def furthest_behind(before: Rows, now: Rows, value: str, sign: int) -> float | None:
    """Of the group that fell furthest behind the others: (its mean fall - theirs) - 2 SE; None without two groups.
    `sign`: 1 where a higher value is better, else -1."""
    known = {row["id"]: row["values"][value] for row in before if value in row["values"]}
    falls: dict[str, list[float]] = {}
    for row in now:
        if row["id"] in known and value in row["values"]:
            falls.setdefault(row["group"], []).append(sign * (known[row["id"]] - row["values"][value]))
    found = []
    for group, mine in falls.items():
        others = [fall for other, part in falls.items() if other != group for fall in part]
        if min(len(mine), len(others)) >= GROUP_LEAST:
            error = math.sqrt(variance(mine) / len(mine) + variance(others) / len(others))
            found.append(fmean(mine) - fmean(others) - 2 * error)
    return max(found, default=None)
