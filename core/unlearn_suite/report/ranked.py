"""Numbers made of rows themselves, not of their sums: AUC, and what stands relative to the oracle arm.

- auc: P(non-member > member) + P(equal) / 2, the rank formula of the Mann-Whitney statistic.
- ks: log10 p of the two-sample Kolmogorov-Smirnov test of an arm's rows and the oracle's; 0 = no difference seen.
- privleak: 100 ((1 - A) - (1 - A_oracle)) / (1 - A_oracle), A the auc (Shi et al., arXiv:2407.06460, section 3).

Several seeds: the number of each seed (with the oracle's of the same place), then their mean.

The interval of ks comes from resampling the difference of the two distribution functions at the place where it is
largest. To look for the largest difference in every resample anew would add the noise of each resample to it and put
the interval beyond the number itself. An arm that equals the oracle has p = 1 and an interval without width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.special import kolmogorov
from scipy.stats import ks_2samp

from .stats import (
    RESAMPLES,
    Aggregate,
    Array,
    Resampled,
    is_alone,
    pair,
    seed_counts,
    unit_draws,
    unit_of,
    unit_products,
)

Ints = npt.NDArray[np.intp]
MEMBER, NON_MEMBER = "member", "non-member"
_PIECE = 4_000_000
"""numbers of a piece of the resampling that are in memory at once"""


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one seed: their units (as indices), values and groups (as indices), each [N]."""

    at: Ints
    x: Array
    group: npt.NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Ranked:
    """One value of the rows of an arm, row by row."""

    units: tuple[str, ...]
    seeds: tuple[Rows, ...]

    @property
    def n_seeds(self) -> int:
        return len(self.seeds)

    def take(self, chosen: Ints) -> Ranked:
        place = np.full(len(self.units), -1, dtype=np.intp)
        place[chosen] = np.arange(len(chosen))
        kept = []
        for rows in self.seeds:
            at = place[rows.at]
            keep = at >= 0
            kept.append(Rows(at[keep], rows.x[keep], rows.group[keep]))
        return Ranked(tuple(self.units[i] for i in chosen), tuple(kept))

    def resampled(self, how: Aggregate) -> Resampled:
        """The auc; `how` can say nothing else."""
        return _over_seeds([_auc(rows, len(self.units)) for rows in self.seeds], len(self.units))


def ranked(seeds: Sequence[Iterable[Mapping[str, Any]]], value: str) -> Ranked:
    """Collect one value of score rows, one iterable of rows per seed. Where it is no finite number, it is left out."""
    index: dict[str, int] = {}
    found = []
    for rows in seeds:
        at, x, group = [], [], []
        for row in rows:
            number = (row.get("values") or {}).get(value)
            if not isinstance(number, int | float) or not np.isfinite(number):
                continue
            at.append(index.setdefault(unit_of(row), len(index)))
            x.append(float(number))
            group.append(str(row.get("group") or ""))
        found.append(Rows(np.array(at, dtype=np.intp), np.array(x, dtype=np.float64), np.array(group, dtype=np.str_)))
    return Ranked(tuple(index), tuple(found))


@dataclass(frozen=True, eq=False)
class Versus:
    """An arm's rows beside the oracle's, on the units both have."""

    own: Ranked
    oracle: Ranked
    kind: str

    @property
    def units(self) -> tuple[str, ...]:
        return self.own.units

    @property
    def n_seeds(self) -> int:
        return self.own.n_seeds

    def take(self, chosen: Ints) -> Versus:
        return Versus(self.own.take(chosen), self.oracle.take(chosen), self.kind)

    def resampled(self, how: Aggregate) -> Resampled:
        """The number that `kind` says, whatever `how`."""
        number = NUMBERS[self.kind]
        own, oracle = self.own.seeds, self.oracle.seeds
        many = len(own) if len(own) > 1 else len(oracle)  # one that has no seeds of its own meets every oracle
        pairs = [(own[i % len(own)], oracle[i % len(oracle)]) for i in range(many)]
        return _over_seeds([number(a, o, len(self.units)) for a, o in pairs], len(self.units))


def versus(own: Ranked, oracle: Ranked, kind: str) -> Versus:
    """`kind` is a key of `NUMBERS`."""
    return Versus(*pair(own, oracle), kind)


def _over_seeds(numbers: Sequence[Resampled], n_units: int) -> Resampled:
    """Their mean; in each resample over the seeds it draws."""
    draws = seed_counts(len(numbers))
    values = np.stack([number.values for number in numbers], axis=1)
    values = (values * draws).sum(axis=1) / draws.sum(axis=1)
    return Resampled(float(np.mean([n.point for n in numbers])), values, is_alone(n_units, len(numbers)))


def _auc(rows: Rows, n_units: int) -> Resampled:
    levels, level = np.unique(rows.x, return_inverse=True)
    shape = (n_units, max(len(levels), 1))
    member, other = (
        csr_matrix((np.ones(int(keep.sum())), (rows.at[keep], level[keep])), shape)
        for keep in (rows.group == MEMBER, rows.group == NON_MEMBER)
    )

    def of(counts: Array) -> Array:
        """[r] from how often each of r resamples takes each unit [r, U]."""
        low, high = counts @ member, counts @ other
        below = low.cumsum(axis=1) - low / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Array = (below * high).sum(axis=1) / (low.sum(axis=1) * high.sum(axis=1))
        return found

    step = max(1, _PIECE // shape[1])
    pieces = [of(draws[i : i + step]) for draws in unit_draws(n_units) for i in range(0, len(draws), step)]
    return Resampled(float(of(np.ones((1, n_units)))[0]), np.concatenate(pieces))


def _privleak(own: Rows, oracle: Rows, n_units: int) -> Resampled:
    a, o = _auc(own, n_units), _auc(oracle, n_units)
    with np.errstate(invalid="ignore", divide="ignore"):
        point = np.divide(100 * (o.point - a.point), 1 - o.point)
        return Resampled(float(point), 100 * (o.values - a.values) / (1 - o.values))


def _ks(own: Rows, oracle: Rows, n_units: int) -> Resampled:
    if not len(own.x) or not len(oracle.x):
        return Resampled(float("nan"), np.full(RESAMPLES, np.nan))
    test = ks_2samp(own.x, oracle.x)
    place = test.statistic_location
    columns = np.stack([_per_unit(r.at, r.x <= place, n_units) for r in (own, oracle)], axis=1)
    sizes = np.stack([np.bincount(r.at, minlength=n_units) for r in (own, oracle)], axis=1)
    sums, rows = np.split(unit_products(np.concatenate([columns, sizes], axis=1)), 2, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(np.subtract(*(sums / rows).T))
    scale = np.sqrt(len(own.x) * len(oracle.x) / (len(own.x) + len(oracle.x)))
    limit = float(_log10_kolmogorov(scale * np.array(test.statistic)))
    point = float(np.log10(test.pvalue)) if test.pvalue > 0 else limit
    # the limiting distribution for the steps, shifted so that it meets the exact test at the number itself
    return Resampled(point, np.minimum(point - limit + _log10_kolmogorov(scale * difference), 0.0))


def _per_unit(at: Ints, what: npt.NDArray[np.bool_], n_units: int) -> Array:
    return np.bincount(at, weights=what, minlength=n_units).astype(np.float64)


def _log10_kolmogorov(z: Array) -> Array:
    """log10 of the survival function of Kolmogorov's distribution, also where that is 0 in floating point."""
    near: Array = np.log10(kolmogorov(np.minimum(z, 3.0)))
    far: Array = np.log10(2) - 2 * z**2 * np.log10(np.e)
    return np.where(z > 3, far, near).astype(np.float64)


NUMBERS: Mapping[str, Callable[[Rows, Rows, int], Resampled]] = {"ks": _ks, "privleak": _privleak}
"""what can be told of an arm's rows and the oracle's, by the `versus` of a value"""
