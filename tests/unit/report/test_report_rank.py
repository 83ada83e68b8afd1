"""Which arm a problem's headline names as the closest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unlearn_suite.report.sentences import ArmLine, _rank
from unlearn_suite.report.stats import Comparison, Resampled, comparison


def line(arm: str, **states: str) -> ArmLine:
    """An arm with one point per wish; `compared` is left out, so the states alone decide."""
    return ArmLine(arm, tuple(point(want.rstrip("0"), state) for want, state in states.items()))


def point(want: str, state: str, compared: Comparison | None = None) -> Any:
    measure = SimpleNamespace(entry=SimpleNamespace(want=want))
    return SimpleNamespace(want=want, state=state, measure=measure, result=SimpleNamespace(compared=compared))


def moved(arm: str, want: str, before: float, after: float) -> ArmLine:
    """An arm that did its one wish."""
    found = comparison(9, *(Resampled(value, np.full(3, value)) for value in (after, before)))
    return ArmLine(arm, (point(want, "met", found),))


def test_an_arm_that_forgot_nothing_is_not_the_closest() -> None:
    idle = line("idle", lower="unclear", keep="met", keep0="met")
    harsh = line("harsh", lower="met", keep="missed", keep0="unclear")
    assert max([idle, harsh], key=_rank) is harsh


def test_of_two_that_forgot_the_one_that_kept_more_is_closer() -> None:
    harsh = line("harsh", lower="met", keep="missed", keep0="unclear")
    mild = line("mild", lower="met", keep="unclear", keep0="met")
    assert max([harsh, mild], key=_rank) is mild


@pytest.mark.parametrize(("want", "far", "near"), [("lower", 1.0, 3.0), ("higher", 9.0, 5.0)])
def test_of_two_alike_the_one_that_went_further_the_wanted_way_is_named(want: str, far: float, near: float) -> None:
    lines = [moved("near", want, 4.0, near), moved("far", want, 4.0, far)]
    assert max(lines, key=_rank).arm == "far"
