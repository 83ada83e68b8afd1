"""The bootstrap against scipy and against what can be worked out by hand; the rules of the verdicts."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap

from unlearn_suite.report import stats
from unlearn_suite.report.judge import ValueInfo, judge
from unlearn_suite.report.stats import Comparison, Estimate
from unlearn_suite.report.words import between

Rows = list[dict[str, Any]]
RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _the_same_draws_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state


def rows(values: Any, weights: Any = None, units: Any = None, groups: Any = None) -> Rows:
    found = []
    for i, value in enumerate(values):
        row: dict[str, Any] = {"id": f"x{i}", "values": {"v": float(value)}}
        row |= {"weight": float(weights[i])} if weights is not None else {}
        row |= {"unit": units[i]} if units is not None else {}
        row |= {"group": groups[i]} if groups is not None else {}
        found.append(row)
    return found


def test_an_interval_agrees_with_scipy_and_with_the_normal_one() -> None:
    x = RNG.normal(3.0, 2.0, size=400)
    found = stats.estimate(stats.sums([rows(x)], "v"))
    assert found is not None
    theirs = bootstrap((x,), np.mean, n_resamples=4000, method="percentile", rng=RNG).confidence_interval
    half = 1.96 * x.std(ddof=0) / math.sqrt(len(x))
    assert found.mean == pytest.approx(x.mean())
    assert [found.lo, found.hi] == pytest.approx([theirs.low, theirs.high], abs=0.02)
    assert [found.lo, found.hi] == pytest.approx([x.mean() - half, x.mean() + half], abs=0.02)


def test_a_paired_change_agrees_with_scipy_on_the_differences() -> None:
    before = RNG.normal(0.0, 5.0, size=300)
    after = before + RNG.normal(-0.5, 1.0, size=300)
    found = stats.compare(stats.sums([rows(after)], "v"), stats.sums([rows(before)[::-1]], "v"))
    assert found is not None
    theirs = bootstrap((after - before,), np.mean, n_resamples=4000, method="percentile", rng=RNG)
    interval = theirs.confidence_interval
    assert found.n == 300
    assert [found.change.lo, found.change.hi] == pytest.approx([interval.low, interval.high], abs=0.02)
    assert found.after.hi - found.after.lo > 3 * (found.change.hi - found.change.lo)


def test_rows_of_one_unit_are_drawn_together() -> None:
    x = np.repeat(RNG.normal(size=50), 8)
    apart = stats.estimate(stats.sums([rows(x)], "v"))
    together = stats.estimate(stats.sums([rows(x, units=[f"u{i // 8}" for i in range(400)])], "v"))
    assert apart is not None and together is not None
    width = (together.hi - together.lo) / (apart.hi - apart.lo)
    assert width == pytest.approx(math.sqrt(8), rel=0.1)


def test_seeds_are_drawn_too_and_units_are_shared_by_them() -> None:
    facts = RNG.normal(size=200)
    alone = stats.estimate(stats.sums([rows(facts)], "v"))
    copies = stats.estimate(stats.sums([rows(facts)] * 3, "v"))
    spread = stats.estimate(stats.sums([rows(facts + d) for d in (-1.0, 0.0, 1.0)], "v"))
    assert alone is not None and copies is not None and spread is not None
    # three equal seeds are no more evidence about the facts than one
    assert (copies.lo, copies.hi) == pytest.approx((alone.lo, alone.hi))
    # variance of the mean of 3 draws from {-1, 0, 1} is 2/9
    assert spread.hi - spread.lo == pytest.approx(2 * 1.96 * math.sqrt(2 / 9 + facts.var() / 200), rel=0.15)


def test_perplexity_is_the_exp_of_the_mean_weighted_by_tokens() -> None:
    nll, tokens = np.array([2.0, 4.0, 3.0]), np.array([10, 30, 60])
    found = stats.estimate(stats.sums([rows(nll, tokens)], "v"), "exp-mean")
    assert found is not None
    assert found.mean == pytest.approx(math.exp((20 + 120 + 180) / 100))
    assert math.exp(2) <= found.lo < found.mean < found.hi <= math.exp(4)


def test_what_is_missing_or_not_finite_is_left_out() -> None:
    data = [*rows([1.0, float("nan"), 3.0, float("inf")]), {"id": "y", "values": {"other": 1.0}}, {"id": "z"}]
    sums = stats.sums([data], "v")
    assert sums.units == ("x0", "x2")
    found = stats.estimate(sums)
    assert found is not None and found.mean == 2.0
    assert stats.estimate(stats.sums([data], "nothing")) is None
    assert stats.compare(stats.sums([rows([1.0])], "v"), stats.sums([[{"id": "q", "values": {"v": 1}}]], "v")) is None


def test_only_shared_units_are_compared() -> None:
    found = stats.compare(stats.sums([rows([1, 2, 3, 4])], "v"), stats.sums([rows([10, 10])], "v"))
    assert found is not None
    assert (found.n, found.after.mean, found.change.mean) == (2, 1.5, -8.5)


def test_relative_change_and_the_way_to_chance() -> None:
    before, after = rows([1] * 75 + [0] * 25), rows([1] * 40 + [0] * 60)
    found = stats.compare(stats.sums([after], "v"), stats.sums([before], "v"), chance=0.25)
    assert found is not None and found.relative is not None and found.removed is not None
    assert found.relative.mean == pytest.approx(-0.35 / 0.75)
    assert found.removed.mean == pytest.approx(0.35 / 0.5)
    nothing = stats.compare(stats.sums([after], "v"), stats.sums([rows([0] * 100)], "v"))
    assert nothing is not None and nothing.relative is None and nothing.removed is None


def test_the_same_data_give_the_same_interval_and_many_units_need_little_memory() -> None:
    x = RNG.normal(size=5000)
    first, second = (stats.estimate(stats.sums([rows(x)], "v")) for _ in range(2))
    assert first == second and first is not None
    assert first.hi - first.lo == pytest.approx(2 * 1.96 / math.sqrt(5000), rel=0.1)


def test_2000_resamples_of_500_rows_are_fast() -> None:
    data = [stats.sums([rows(RNG.normal(size=500))], "v") for _ in range(2)]
    stats.compare(*data)
    start = time.process_time()
    for _ in range(5):
        stats.compare(*data)
    assert (time.process_time() - start) / 5 < 0.5


def changed(before: float, change: tuple[float, float, float]) -> Comparison:
    mean, lo, hi = change
    same = Estimate(before, before, before)
    return Comparison(50, same, Estimate(before + mean, before + lo, before + hi), Estimate(mean, lo, hi), None, None)


ACCURACY = ValueInfo("accuracy", better="higher", lowest=0, highest=1)
PERPLEXITY = ValueInfo("perplexity", better="lower", aggregate="exp-mean")
UNKNOWN = ValueInfo("length")


@pytest.mark.parametrize(
    ("want", "info", "before", "change", "text"),
    [
        ("lower", ACCURACY, 0.6, (-0.5, -0.6, -0.4), "✓ lower"),
        ("lower", ACCURACY, 0.6, (-0.1, -0.3, 0.1), "? unclear"),
        ("lower", ACCURACY, 0.6, (0.1, 0.05, 0.2), "✗ higher"),
        ("lower", ACCURACY, 1.0, (0.0, 0.0, 0.0), "✗ no change"),
        ("higher", ACCURACY, 0.6, (0.1, 0.05, 0.2), "✓ higher"),
        ("keep", ACCURACY, 0.6, (-0.01, -0.015, -0.005), "✓ kept"),
        ("keep", ACCURACY, 0.6, (-0.01, -0.06, 0.04), "≈ likely kept"),
        ("keep", ACCURACY, 0.6, (-0.05, -0.11, 0.01), "? unclear"),
        ("keep", ACCURACY, 0.6, (-0.05, -0.08, -0.02), "✗ not kept"),
        ("keep", ACCURACY, 0.6, (0.3, 0.2, 0.4), "✓ kept"),
        ("keep", PERPLEXITY, 40.0, (0.4, 0.2, 0.6), "✓ kept"),
        ("keep", PERPLEXITY, 40.0, (4.0, 3.0, 5.0), "✗ not kept"),
        ("keep", PERPLEXITY, 40.0, (-9.0, -9.5, -8.5), "✓ kept"),
        ("keep", UNKNOWN, 10.0, (2.0, 1.0, 3.0), "✗ not kept"),
        ("keep", UNKNOWN, 10.0, (-2.0, -3.0, -1.0), "✗ not kept"),
    ],
)
def test_verdicts(want: str, info: ValueInfo, before: float, change: tuple[float, float, float], text: str) -> None:
    verdict = judge(want, info, changed(before, change))
    assert verdict is not None and verdict.text == text


def test_one_item_in_one_seed_has_no_interval_and_nothing_about_it_is_clear() -> None:
    one, other = stats.sums([rows([0.9])], "v"), stats.sums([rows([0.1])], "v")
    found = stats.compare(other, one)
    assert found is not None and found.relative is not None and found.removed is not None
    for number in (found.before, found.after, found.change, found.relative, found.removed):
        assert number.alone and not number.above(-9) and not number.below(9) and between(number, 3) == "too few items"
    assert found.change.to_json() == {"mean": pytest.approx(-0.8), "lo": None, "hi": None}
    same = stats.compare(one, one)
    for want in ("lower", "higher", "keep"):
        for compared in (found, same):
            assert compared is not None
            verdict = judge(want, ACCURACY, compared)
            assert verdict is not None and verdict.text == "? unclear" and verdict.moved == 0


def test_two_items_or_two_seeds_have_an_interval() -> None:
    base = stats.sums([rows([0.9, 0.9])], "v")
    items = stats.compare(stats.sums([rows([0.1, 0.1])], "v"), base)
    seeds = stats.compare(stats.sums([rows([0.1]), rows([0.3])], "v"), base)
    assert items is not None and items.change.below(0) and not items.before.alone
    assert seeds is not None and seeds.before.alone
    assert (seeds.change.lo, seeds.change.hi) == pytest.approx((-0.8, -0.6)) and seeds.change.below(0)


def test_nothing_is_judged_that_the_plan_does_not_want() -> None:
    assert judge("", ACCURACY, changed(0.6, (-0.5, -0.6, -0.4))) is None
