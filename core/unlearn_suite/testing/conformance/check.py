"""What a check is, what it can say, and the list of all checks in the order they are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .subject import Subject

Area = Literal["plugin", "options", "objective", "dataset", "metric", "problem", "attack"]
AREAS: tuple[Area, ...] = ("plugin", "options", "objective", "dataset", "metric", "problem", "attack")
Outcome = Literal["passed", "failed", "skipped", "expected", "unexpected"]


class CheckFailed(Exception):
    """The plugin does not do what the check asks; the text is one sentence for its author."""


class Skipped(Exception):
    """The check has nothing to say about this subject; the text is the reason."""


@dataclass(frozen=True)
class Check:
    """One promise of a plugin. `id` is stable; `summary` completes "it holds that ..."."""

    id: str
    area: Area
    summary: str
    run: Callable[[Subject], None]


@dataclass(frozen=True)
class Result:
    """What a check found. `expected`: it failed and was expected to; `unexpected`: it passed though it was
    expected to fail, so the list is out of date. `message`: why it failed, was skipped or was expected to fail."""

    id: str
    subject: str
    summary: str
    outcome: Outcome
    message: str = ""

    @property
    def ok(self) -> bool:
        return self.outcome not in ("failed", "unexpected")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


CHECKS: dict[str, Check] = {}
"""all checks by id"""


def check(identity: str, area: Area, summary: str) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Register a function as a check. It returns when all is well, and raises `CheckFailed` or `Skipped`."""

    def add(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        assert identity not in CHECKS, identity
        CHECKS[identity] = Check(identity, area, summary, function)
        return function

    return add
