"""Whether a value did what the plan wants of it (`lower`, `higher`, `keep`), by fixed rules that a reader can check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .stats import AGGREGATES, Aggregate, Comparison
from .words import decimals

FRACTION_TOLERANCE = 0.02
"""largest harmful change of a kept value that lies between 0 and 1: two points"""
RELATIVE_TOLERANCE = 0.03
"""largest harmful relative change of any other kept value"""

State = Literal["met", "likely", "unclear", "missed"]

MARKS: Mapping[State, str] = {"met": "✓", "likely": "≈", "unclear": "?", "missed": "✗"}


@dataclass(frozen=True)
class ValueInfo:
    """What a number means: the fields of its `ValueSpec`, or what can be said without one."""

    name: str
    summary: str = ""
    unit: str = ""
    better: str = ""
    chance: float | None = None
    lowest: float | None = None
    highest: float | None = None
    aggregate: Aggregate = "mean"
    versus: str = ""
    of: str = ""
    second: str = ""
    reliability: str = ""

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Any]) -> ValueInfo:
        return cls(
            name=name,
            summary=str(data.get("summary") or ""),
            unit=str(data.get("unit") or ""),
            better=str(data.get("better") or ""),
            chance=_number(data.get("chance")),
            lowest=_number(data.get("lowest")),
            highest=_number(data.get("highest")),
            aggregate=AGGREGATES.get(str(data.get("aggregate")), "mean"),
            versus=str(data.get("versus") or ""),
            of=str(data.get("of") or ""),
            second=str(data.get("second") or ""),
            reliability=str(data.get("reliability") or ""),
        )

    @property
    def is_fraction(self) -> bool:
        return self.lowest == 0 and self.highest == 1

    def places(self, scale: float) -> int:
        """Decimals to show for values of this size."""
        return 3 if self.is_fraction else decimals(scale)

    def tolerance(self, before: float) -> float:
        """Largest harmful change, in the value's own unit, that still counts as kept."""
        return FRACTION_TOLERANCE if self.is_fraction else RELATIVE_TOLERANCE * abs(before)


@dataclass(frozen=True)
class Verdict:
    """`state` with the word a reader sees; `moved` is -1, 0 or 1: the clear direction of the change, if any."""

    state: State
    word: str
    moved: int

    @property
    def text(self) -> str:
        return f"{MARKS[self.state]} {self.word}"


UNCLEAR = Verdict("unclear", "unclear", 0)


def direction(compared: Comparison) -> int:
    """-1 or 1 when the interval of the change excludes 0, else 0."""
    if compared.change.below(0):
        return -1
    return 1 if compared.change.above(0) else 0


def judge(want: str, info: ValueInfo, compared: Comparison) -> Verdict | None:
    """The verdict on an entry's headline value; None when the plan wants nothing of it."""
    if want not in {"lower", "higher", "keep"}:
        return None
    if compared.change.alone:
        return UNCLEAR
    return _judge_kept(info, compared) if want == "keep" else _judge_move(-1 if want == "lower" else 1, compared)


def _judge_move(wanted: int, compared: Comparison) -> Verdict:
    moved = direction(compared)
    if compared.change.lo == compared.change.hi == 0:
        return Verdict("missed", "no change", 0)
    if moved == 0:
        return UNCLEAR
    word = "lower" if moved < 0 else "higher"
    return Verdict("met" if moved == wanted else "missed", word, moved)


def _judge_kept(info: ValueInfo, compared: Comparison) -> Verdict:
    """Only harm counts against a kept value; without a known good direction every change is harm."""
    change, moved = compared.change, direction(compared)
    tolerance = info.tolerance(compared.before.mean)
    harm, worst = {
        "higher": (-change.mean, -change.lo),
        "lower": (change.mean, change.hi),
    }.get(info.better, (abs(change.mean), max(-change.lo, change.hi)))
    if worst <= tolerance:
        return Verdict("met", "kept", moved)
    if harm <= tolerance:
        return Verdict("likely", "likely kept", moved)
    if moved == 0:
        return UNCLEAR
    return Verdict("missed", "not kept", moved)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
