"""Which arm a problem's headline names as the closest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from unlearn_suite.report.sentences import ArmLine, _rank


def line(arm: str, **states: str) -> ArmLine:
    """An arm with one point per wish; `compared` is left out, so the states alone decide."""
    points: list[Any] = [
        SimpleNamespace(want=want.rstrip("0"), state=state, result=SimpleNamespace(compared=None))
        for want, state in states.items()
    ]
    return ArmLine(arm, tuple(points))


def test_an_arm_that_forgot_nothing_is_not_the_closest() -> None:
    idle = line("idle", lower="unclear", keep="met", keep0="met")
    harsh = line("harsh", lower="met", keep="missed", keep0="unclear")
    assert max([idle, harsh], key=_rank) is harsh


def test_of_two_that_forgot_the_one_that_kept_more_is_closer() -> None:
    harsh = line("harsh", lower="met", keep="missed", keep0="unclear")
    mild = line("mild", lower="met", keep="unclear", keep0="met")
    assert max([harsh, mild], key=_rank) is mild
