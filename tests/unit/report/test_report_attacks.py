"""The share of what was forgotten that an attack brings back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unlearn_suite.report.attacks import Half, _half, _share, half_text
from unlearn_suite.report.judge import ValueInfo
from unlearn_suite.report.stats import Resampled
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
    assert _half(info, rows(1.0), rows(0.0), path) == Half(6.0, 8)
    assert _half(info, rows(1.0), rows(0.0), path[:2]) == Half(None, 4)
    assert _half(info, rows(1.0), rows(0.0), []) is None, "not attacked yet"
    assert _half(info, rows(1.0), rows(1.0), path) is None, "nothing was forgotten"
    arm: Any = SimpleNamespace(half=(Half(6.0, 8), Half(None, 4)))
    assert half_text(arm) == "6, > 4" and half_text(SimpleNamespace(half=())) == "–"  # type: ignore[arg-type]
