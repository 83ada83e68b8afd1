"""What a problem expects of the arms that unlearn (`expect` in its file), against the numbers of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..plan.limits import outside, subject
from ..plan.model import Limit
from .load import Json, RunData
from .measures import ORACLE
from .summary import ProblemSummary, results_json
from .words import listing, number, percent, signed

_PART = {"after": None, "change": "change", "relative_change": "relative"}
State = Literal["met", "missed", "none"]


def number_of(of: str, result: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> float | None:
    """The number that a line of `expect` speaks of, from the `results` of summary.json; None where there is none."""
    if of == "over_oracle":
        same = ("problem", "model", "metric", "value")
        oracle = next((r for r in results if r["arm"] == ORACLE and all(r[k] == result[k] for k in same)), None)
        return None if oracle is None else float(result["mean"] - oracle["mean"])
    part = _PART[of]
    estimate = result if part is None else result[part]
    return float(estimate["mean"]) if estimate else None


@dataclass(frozen=True)
class Check:
    """One number against its limits. `state` none: there is no such number."""

    state: State
    number: float | None
    text: str


@dataclass(frozen=True)
class Expectation:
    """One line of what a problem expects, across the arms that unlearn. `before`: of the model they begin with (None of
    a change), as a limit that it is within already says nothing of an arm that is within it too."""

    limit: Limit
    before: Check | None
    arms: Mapping[str, Check]

    @property
    def held(self) -> bool:
        """Whether the model that arms begin with is within the limits."""
        return self.before is not None and self.before.state == "met"

    @property
    def label(self) -> str:
        return subject(self.limit.metric, self.limit.value, self.limit.of)

    @property
    def limits(self) -> str:
        """'above −5 % and below +5 %'."""
        ends = (("above", self.limit.above), ("below", self.limit.below))
        return listing([f"{word} {_told(self.limit.of, end)}" for word, end in ends if end is not None])


def expectations(run: RunData, problem: ProblemSummary) -> list[Expectation]:
    """In the order of the problem's file; [] for a problem that expects nothing. Oracle and controls are not asked."""
    limits = list(_limits(run.lock, problem.problem))
    arms = [arm for arm in problem.arms if arm not in problem.controls and arm != ORACLE]
    if not limits or not arms:
        return []
    results = results_json(problem)
    return [
        Expectation(
            limit,
            _check(limit, problem.base_arm, results) if limit.of in ("after", "over_oracle") else None,
            {arm: _check(limit, arm, results) for arm in arms},
        )
        for limit in limits
    ]


def _limits(lock: Json, label: str) -> Iterable[Limit]:
    for problem in lock.get("problems") or ():
        if isinstance(problem, Mapping) and problem.get("name") == label:
            for line in problem.get("expect") or ():
                yield Limit(line["metric"], line["value"], line["of"], line.get("below"), line.get("above"))


def _check(limit: Limit, arm: str, results: Sequence[Json]) -> Check:
    wanted = (arm, limit.metric, limit.value)
    result = next((r for r in results if (r["arm"], r["metric"], r["value"]) == wanted), None)
    found = None if result is None else number_of(limit.of, result, results)
    if found is None or not math.isfinite(found):
        return Check("none", None, "–")
    state: State = "missed" if outside(found, limit.below, limit.above) else "met"
    return Check(state, found, _told(limit.of, found))


def _told(of: str, value: float) -> str:
    if of == "relative_change":
        return percent(value)
    return number(value, 3) if of == "after" else signed(value, 3)


def expected_lines(found: Sequence[Expectation]) -> list[str]:
    """One line per arm for the terminal: how many hold, and which do not."""
    lines = []
    for arm in dict.fromkeys(arm for line in found for arm in line.arms):
        checks = [(line, line.arms[arm]) for line in found]
        missed = [f"{line.label} is {c.text}, not {line.limits}" for line, c in checks if c.state == "missed"]
        absent = [line.label for line, c in checks if c.state == "none"]
        met = sum(c.state == "met" for _, c in checks)
        known = sum(c.state == "met" and line.held for line, c in checks)
        before = f" ({known} held before)" if known else ""
        told = [f"{arm}: {met} of {len(checks)} that the problem expects{before}"]
        told += missed + ([f"without a number: {', '.join(absent)}"] if absent else [])
        lines.append("; ".join(told))
    return lines


def expected_json(problem: ProblemSummary, found: Sequence[Expectation]) -> list[Json]:
    """For summary.json."""
    return [
        {
            "problem": problem.problem,
            "model": problem.model,
            "arm": arm,
            **vars(line.limit),
            "before": line.before.number if line.before else None,
            "number": check.number,
            "holds": None if check.state == "none" else check.state == "met",
        }
        for line in found
        for arm, check in line.arms.items()
    ]
