"""From rows to one number with a 95 % interval: bootstrap over units and seeds, paired with the base model.

Units (facts, prompts) are the same in every seed, so seeds and units are crossed: a resample draws seeds, then
units once for all drawn seeds. Drawing units anew within each seed would count one fact several times and make
intervals too narrow. Sums per unit are all that a resample needs, so 2,000 resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol, Self, TypeVar, get_args

import numpy as np
import numpy.typing as npt

Aggregate = Literal["mean", "exp-mean", "auc"]
AGGREGATES: Mapping[str, Aggregate] = {name: name for name in get_args(Aggregate)}
Array = npt.NDArray[np.float64]
C = TypeVar("C", bound="Column")

RESAMPLES = 2000
LEVEL = 0.95
_SEED = 20_240_601
"""the resampling is a fixed function of the numbers of units and seeds"""
_CACHED_UNITS = 2048
"""largest number of units whose draws [R, U] are kept for the next value (32 MB)"""


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95 % interval; all None-free and finite.

    `alone`: of one unit in one seed, which has no interval; the ends are the number itself.
    """

    mean: float
    lo: float
    hi: float
    alone: bool = False

    def to_json(self) -> dict[str, float | None]:
        ends = (None, None) if self.alone else (self.lo, self.hi)
        return {"mean": self.mean, "lo": ends[0], "hi": ends[1]}

    def above(self, value: float) -> bool:
        """Clearly above it."""
        return not self.alone and self.lo > value

    def below(self, value: float) -> bool:
        """Clearly below it."""
        return not self.alone and self.hi < value


@dataclass(frozen=True, eq=False)
class Resampled:
    """One aggregated number: its point value, and its value in each of the R resamples.

    Equal numbers of units and seeds are drawn alike: that pairs what is to be compared. `alone`: as in `Estimate`.
    """

    point: float
    values: Array
    alone: bool = False

    def estimate(self) -> Estimate | None:
        return interval(self.point, self.values, self.alone)


class Column(Protocol):
    """One value of the rows of one arm, as far as a resample needs them: units, and what becomes a number."""

    @property
    def units(self) -> tuple[str, ...]: ...
    @property
    def n_seeds(self) -> int: ...
    def take(self, chosen: npt.NDArray[np.intp]) -> Self:
        """These units, in this order."""

    def resampled(self, how: Aggregate) -> Resampled: ...


@dataclass(frozen=True)
class Sums:
    """Weighted sums per seed and unit: `total` and `weight` are [S, U]. Every unit has a value in some seed."""

    total: Array
    weight: Array
    units: tuple[str, ...]

    @property
    def n_seeds(self) -> int:
        return len(self.total)

    def take(self, chosen: npt.NDArray[np.intp]) -> Sums:
        """These units, in this order."""
        return Sums(self.total[:, chosen], self.weight[:, chosen], tuple(self.units[i] for i in chosen))

    def resampled(self, how: Aggregate) -> Resampled:
        """The weighted mean over all seeds and units (or its exp)."""
        point = aggregate(self.total.sum(keepdims=True), self.weight.sum(keepdims=True), how)[0, 0]
        products = unit_products(np.concatenate([self.total.T, self.weight.T], axis=1))
        seeds = seed_counts(self.n_seeds)
        total = (products[:, : self.n_seeds] * seeds).sum(axis=1)
        weight = (products[:, self.n_seeds :] * seeds).sum(axis=1)
        return Resampled(float(point), aggregate(total, weight, how), is_alone(len(self.units), self.n_seeds))


def is_alone(n_units: int, n_seeds: int) -> bool:
    """Whether resamples cannot differ, so that they tell nothing."""
    return n_units < 2 and n_seeds < 2


def unit_of(row: Mapping[str, Any]) -> str:
    return str(row.get("unit") or row.get("id") or "")


def sums(seeds: Sequence[Iterable[Mapping[str, Any]]], value: str) -> Sums:
    """Collect one value of score rows, one iterable of rows per seed.

    Rows without the value, or where it or the weight is not a finite number, are left out.
    """
    index: dict[str, int] = {}
    found: list[tuple[list[int], list[float], list[float]]] = []
    for rows in seeds:
        at: list[int] = []
        numbers: list[float] = []
        weights: list[float] = []
        for row in rows:
            number = (row.get("values") or {}).get(value)
            if not isinstance(number, int | float):
                continue
            at.append(index.setdefault(unit_of(row), len(index)))
            numbers.append(float(number))
            weights.append(_weight(row.get("weight")))
        found.append((at, numbers, weights))
    return _scatter(found, tuple(index))


def _scatter(found: Sequence[tuple[list[int], list[float], list[float]]], units: tuple[str, ...]) -> Sums:
    total = np.zeros((len(found), len(units)))
    weight = np.zeros_like(total)
    for seed, (at, numbers, weights) in enumerate(found):
        x, w = np.array(numbers, dtype=np.float64), np.array(weights, dtype=np.float64)
        good = np.isfinite(x) & np.isfinite(w) & (w > 0)
        where = np.array(at, dtype=np.intp)[good]
        np.add.at(total[seed], where, (x * w)[good])
        np.add.at(weight[seed], where, w[good])
    # a unit without any value would only thin out the draws
    return Sums(total, weight, units).take(np.flatnonzero(weight.sum(axis=0) > 0))


def _weight(value: Any) -> float:
    if value is None:
        return 1.0
    return float(value) if isinstance(value, int | float) else float("nan")


def pair(after: C, base: C) -> tuple[C, C]:
    """Both on the units they share, in one order."""
    place = {unit: i for i, unit in enumerate(base.units)}
    shared = [(i, place[unit]) for i, unit in enumerate(after.units) if unit in place]
    mine, theirs = (np.array(indices, dtype=np.intp) for indices in (zip(*shared, strict=True) if shared else ((), ())))
    return after.take(mine), base.take(theirs)


def unit_draws(n_units: int) -> Iterator[Array]:
    """[R, U] in pieces of some resamples each: how often each resample takes each unit.

    The draws are a fixed function of U, so numbers of equally many units are resampled alike.
    """
    if n_units <= _CACHED_UNITS:
        yield _unit_counts(n_units)
        return
    rng = np.random.default_rng((_SEED, 0, n_units))
    step = max(1, _CACHED_UNITS * RESAMPLES // n_units)
    for at in range(0, RESAMPLES, step):
        yield _counts(rng, n_units, min(step, RESAMPLES - at))


def unit_products(columns: Array) -> Array:
    """[R, K]: each resample's sums of the columns [U, K] over the units it draws."""
    return np.concatenate([counts @ columns for counts in unit_draws(len(columns))])


@lru_cache(maxsize=4)
def _unit_counts(n_units: int) -> Array:
    return _counts(np.random.default_rng((_SEED, 0, n_units)), n_units, RESAMPLES)


@lru_cache(maxsize=16)
def seed_counts(n_seeds: int) -> Array:
    """[R, S]: how often each resample takes each seed."""
    return _counts(np.random.default_rng((_SEED, 1, n_seeds)), n_seeds, RESAMPLES)


def _counts(rng: np.random.Generator, n: int, resamples: int) -> Array:
    if n == 1:
        return np.ones((resamples, 1))
    picks = rng.integers(0, n, size=(resamples, n)) + np.arange(resamples)[:, None] * n
    return np.bincount(picks.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def aggregate(total: Array, weight: Array, how: Aggregate) -> Array:
    """Weighted mean (or its exp) of sums over units; nan where nothing has weight."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = total / weight
        return np.exp(mean) if how == "exp-mean" else mean


def interval(point: float, values: Array, alone: bool = False) -> Estimate | None:
    """Percentile interval; None unless the point is finite and nearly all resamples are."""
    finite = values[np.isfinite(values)]
    if not np.isfinite(point) or len(finite) < 0.95 * len(values):
        return None
    lo, hi = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(point), float(lo), float(hi), alone)


def estimate(data: Column, how: Aggregate = "mean") -> Estimate | None:
    """Aggregate with its interval; None without data."""
    return data.resampled(how).estimate() if data.units else None


@dataclass(frozen=True, eq=False)
class Draws:
    """Both numbers of a comparison in each of the R resamples, paired: [R]."""

    before: Array
    after: Array


@dataclass(frozen=True)
class Comparison:
    """An arm against the base model on the units both have. `removed` is the part of the way from base to
    chance (or to 0, without a chance level) that the value has gone; 1 is all of it."""

    n: int
    before: Estimate
    after: Estimate
    change: Estimate
    relative: Estimate | None
    removed: Estimate | None
    draws: Draws | None = field(default=None, repr=False)


def compare(
    after: C, base: C, how: Aggregate = "mean", chance: float | None = None, *, draws: bool = False
) -> Comparison | None:
    """Paired bootstrap; None when no unit is shared. `base` has one seed, or the seeds of `after` in order.

    With `draws` the resamples are kept, for what is made of several numbers.
    """
    if base.n_seeds not in (1, after.n_seeds):
        raise ValueError("base needs one seed, or as many as the arm")
    after, base = pair(after, base)
    if not after.units:
        return None
    return comparison(len(after.units), after.resampled(how), base.resampled(how), chance, draws=draws)


def comparison(
    n: int, a: Resampled, b: Resampled, chance: float | None = None, *, draws: bool = False
) -> Comparison | None:
    """Number `a` after against number `b` before, over `n` units; None when one of them is not finite."""
    floor = chance or 0.0
    alone = a.alone and b.alone
    with np.errstate(invalid="ignore", divide="ignore"):
        change = interval(a.point - b.point, a.values - b.values, alone)
        relative = interval(_ratio(a.point - b.point, abs(b.point)), (a.values - b.values) / np.abs(b.values), alone)
        way, whole = (b.values - a.values), (b.values - floor)
        removed = interval(_ratio(b.point - a.point, b.point - floor), way / whole, alone)
    before, now = b.estimate(), a.estimate()
    if before is None or now is None or change is None:
        return None
    kept = Draws(b.values, a.values) if draws else None
    return Comparison(n, before, now, change, relative, removed if b.point > floor else None, kept)


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")
