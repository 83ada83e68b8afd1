"""The share of what was forgotten that an attack brings back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unlearn_suite.report.attacks import Half, _half, _reading, _share, attack_tables, half_text, worst_path
from unlearn_suite.report.judge import ValueInfo
from unlearn_suite.report.load import RunData
from unlearn_suite.report.stats import Resampled
from unlearn_suite.report.summary import summarize
from unlearn_suite.specs import AttackPoint


def around(point: float) -> Resampled:
    """A value and its resamples, a hundredth to both sides."""
    return Resampled(point, np.linspace(point - 0.01, point + 0.01, 101))


@pytest.mark.parametrize(
    ("want", "base", "gone", "back", "share"),
    [
        ("lower", 0.8, 0.2, 0.5, 0.5),
        ("higher", 2.0, 6.0, 3.0, 0.75),
        ("keep", 2.0, 6.0, 3.0, 0.75),
        ("lower", 0.2, 0.8, 0.5, None),  # it went the wrong way: nothing was forgotten
        ("higher", 6.0, 2.0, 3.0, None),
        ("lower", 0.5, 0.495, 0.5, None),
    ],
)
def test_only_what_was_forgotten_can_come_back(want: str, base: float, gone: float, back: float, share: float) -> None:
    resampled = around(gone)
    if share is None and abs(base - gone) < 0.01:  # unlike resamples, so that the change is not clear
        resampled = Resampled(gone, resampled.values[::-1])
    found = _share(around(base), resampled, around(back), want)
    assert (found is None) if share is None else (found is not None and found.mean == pytest.approx(share))


def rows(value: float) -> list[dict[str, Any]]:
    return [{"id": "x", "unit": "x", "values": {"v": value}}]


def test_half_is_told_of_seeds_that_were_attacked_and_as_far_as_they_were() -> None:
    info = ValueInfo("v", better="higher")
    path = [(AttackPoint("1e-4", at), rows(value)) for at, value in ((2, 0.1), (4, 0.3), (8, 0.7))]
    assert _half(info, "lower", rows(1.0), rows(0.0), path) == Half(6.0, 8)
    assert _half(info, "lower", rows(1.0), rows(0.0), path[:2]) == Half(None, 4)
    assert _half(info, "lower", rows(1.0), rows(0.0), []) is None, "not attacked yet"
    assert _half(info, "lower", rows(1.0), rows(1.0), path) is None, "nothing was forgotten"
    assert _half(info, "higher", rows(1.0), rows(0.0), path) is None, "it went the wrong way"
    assert _half(info, "keep", rows(1.0), rows(0.0), path) == Half(6.0, 8), "lost, if not on purpose"
    arm: Any = SimpleNamespace(half=(Half(6.0, 8), Half(None, 4)))
    assert half_text(arm) == "6, > 4" and half_text(SimpleNamespace(half=())) == "–"  # type: ignore[arg-type]


def items(*values: float) -> list[dict[str, Any]]:
    return [{"id": f"x{i}", "values": {"v": value}} for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("want", "untouched", "unlearned", "worst"),
    [
        ("lower", (0.5, 0.7), (0.6, 0.5), 0.9),  # not clearly lower: what it was to lose is worst where most is there
        ("lower", (0.1, 0.2), (0.6, 0.5), 0.9),  # clearly the wrong way
        ("higher", (0.5, 0.7), (0.6, 0.5), 0.2),
        ("keep", (0.5, 0.7), (0.6, 0.5), 0.9),  # up is towards the untouched model
        ("keep", (0.5, 0.5), (0.6, 0.5), 0.2),
        ("keep", (0.9, 0.9), (0.1, 0.1), 0.9),  # clearly lost: by the share that is back
    ],
)
def test_where_nothing_was_clearly_forgotten_the_worst_went_furthest_the_way_back(
    want: str, untouched: tuple[float, ...], unlearned: tuple[float, ...], worst: float
) -> None:
    def reading(at: int, value: float) -> Any:
        seeds = [(items(*untouched), items(*unlearned), items(value, value))]
        return _reading(AttackPoint("", at), seeds, ValueInfo("v"), want)

    found = [reading(1, 0.5), reading(2, 0.9), reading(3, 0.2)]
    assert all((one.back is None) == (untouched[0] < 0.9) for one in found)
    assert max(found, key=lambda one: one.rank).value.mean == worst
    again = [reading(1, 0.5), reading(1, 0.9), reading(1, 0.2)]
    arm: Any = SimpleNamespace(unlearned=SimpleNamespace(mean=0.0), readings=again)
    assert worst_path(arm) == [(0, 0.0), (1, worst)]


RELEARN = {"name": "relearn", "points": [{"strength": "lr 1", "at": 2}], "scores": ["toxicity"]}


def test_every_seed_of_a_sampled_metric_counts_though_the_base_model_was_scored_with_one(made: Any) -> None:
    made.score(made.cell("everyday-toxicity", "base", 0))
    back = []
    for seed in (0, 1):
        folder = made.cell("everyday-toxicity", "gradient-ascent", seed, attacks=[RELEARN])
        made.score(folder, only=("toxicity",))
        back.append(made.rows({"use": "x/toxicity", "name": "toxicity"}, "base", seed))
        folder.write_scores("toxicity@relearn lr 1,2", back[-1])
    run = RunData(made.close())
    (problem,) = summarize(run)
    (table,) = attack_tables(run, problem, "")
    (arm,) = table.arms
    assert arm.worst.value.mean == pytest.approx(np.mean([row["values"]["mean"] for rows in back for row in rows]))
    assert arm.worst.back is not None and len(arm.half) == 2
    after = next(m for m in problem.headlines if m.entry.name == "toxicity").arms["gradient-ascent"]
    assert after.seeds == 2 and arm.unlearned == after.after
