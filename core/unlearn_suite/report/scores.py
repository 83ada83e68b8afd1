"""The unified score of an arm: F (forgotten), R (retained), U, from a problem's own headline values.

F is the mean over what the plan wants changed, R the harmonic mean over what it wants kept, U the harmonic mean of
the two. docs/explanation/scores.md gives the formulas and the reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import hmean

from .judge import ValueInfo
from .measures import Measure, Result
from .stats import Array, Estimate, interval
from .summary import ProblemSummary


@dataclass(frozen=True, eq=False)
class Term:
    """What one measure adds: its share in [0, 1] at the point and in each resample [R], and how it is computed."""

    measure: Measure
    formula: str
    share: Estimate
    point: float
    values: Array


@dataclass(frozen=True)
class ArmScore:
    """`family`: what swept arms have in common ("" for none). `left_out`: (label, why) of headline values that
    cannot count. `draws` [R]: U in each resample. `behind`: U minus that of the arm with the highest, in the same
    resamples; None for that arm, and where the two have other items or seeds."""

    arm: str
    family: str
    forgotten: Estimate
    retained: Estimate
    unified: Estimate
    forget: tuple[Term, ...]
    keep: tuple[Term, ...]
    left_out: tuple[tuple[str, str], ...]
    draws: Array
    behind: Estimate | None = None


def arm_scores(problem: ProblemSummary) -> list[ArmScore]:
    """The arms for which all terms of F and R can be computed, in the order of the plan."""
    found = [score for arm in problem.arms if (score := _score(problem, arm)) is not None]
    best = max(found, key=lambda score: score.unified.mean, default=None)
    return [replace(score, behind=_behind(score, best)) if best and score is not best else score for score in found]


def _behind(score: ArmScore, best: ArmScore) -> Estimate | None:
    """Numbers of equally many items and seeds are resampled alike, so the difference is one of pairs."""
    items = [[(t.measure.arms[s.arm].n, t.measure.arms[s.arm].seeds) for t in s.forget + s.keep] for s in (score, best)]
    if items[0] != items[1]:
        return None
    point = score.unified.mean - best.unified.mean
    return interval(point, score.draws - best.draws, score.unified.alone or best.unified.alone)


def _score(problem: ProblemSummary, arm: str) -> ArmScore | None:
    forget: list[Term] = []
    keep: list[Term] = []
    left_out: list[tuple[str, str]] = []
    for measure in problem.headlines:
        want = measure.entry.want
        if want not in {"lower", "higher", "keep"}:
            continue
        term = _term(measure, measure.arms.get(arm))
        if term is None:  # a mean over other terms than the other arms' would not be theirs to compare
            return None
        if isinstance(term, str):
            left_out.append((measure.label, term))
        else:
            (keep if want == "keep" else forget).append(term)
    if not forget or not keep:
        return None
    columns = [([t.point for t in terms], np.stack([t.values for t in terms])) for terms in (forget, keep)]
    (f_points, f_draws), (r_points, r_draws) = columns
    f, r = float(np.mean(f_points)), float(hmean(r_points))
    f_all, r_all = f_draws.mean(axis=0), hmean(r_draws)
    f_alone, r_alone = (any(t.share.alone for t in terms) for terms in (forget, keep))
    u_all = hmean(np.stack([f_all, r_all]))
    estimates = [
        interval(f, f_all, f_alone),
        interval(r, r_all, r_alone),
        interval(float(hmean([f, r])), u_all, f_alone or r_alone),
    ]
    if any(e is None for e in estimates):
        return None
    forgotten, retained, unified = (e for e in estimates if e is not None)
    family = _family(problem, arm)
    return ArmScore(arm, family, forgotten, retained, unified, tuple(forget), tuple(keep), tuple(left_out), u_all)


def _family(problem: ProblemSummary, arm: str) -> str:
    about = next((c.cell.get("summary") for c in problem.cells_of(arm)), None)
    return str(about.get("family") or "") if isinstance(about, dict) else ""


def _term(measure: Measure, result: Result | None) -> Term | str | None:
    """The term, or why there is none for any arm; None when this arm has no number."""
    compared = result.compared if result is not None else None
    if compared is None or compared.draws is None:
        return None
    rule = _rule(measure.entry.want, measure.info)
    if rule is None:
        return "it is to get higher and has no highest value"
    floor = floor_of(measure.info)
    needs_room = measure.entry.want == "lower" or (measure.entry.want == "keep" and measure.info.better == "higher")
    if needs_room and not compared.before.above(floor):
        return f"the untouched model is not clearly above {floor:g}"
    formula, share = rule
    before, after = np.array(compared.before.mean), np.array(compared.after.mean)
    point, values = float(share(before, after)), share(compared.draws.before, compared.draws.after)
    estimate = interval(point, values, compared.change.alone)
    return Term(measure, formula, estimate, point, values) if estimate is not None else None


class _Share:
    """clip(above / below, 0, 1) of values before and after; `kind` is a key of `FORMULAS`."""

    def __init__(self, kind: str, end: float) -> None:
        self.kind = kind
        self.end = end

    def __call__(self, before: Array, after: Array) -> Array:
        end = self.end
        above, below = {
            "lowered": (before - after, before - end),
            "raised": (after - before, end - before),
            "high": (after - end, before - end),
            "low": (before, after),
            "same": (np.abs(before) - np.abs(after - before), np.abs(before)),
        }[self.kind]
        # nothing is left to be kept or lost: 0 of 0 counts as kept
        empty = 1.0 if self.kind in {"low", "same"} else np.nan
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where((above == 0) & (below == 0), empty, above / below)
        return np.clip(ratio, 0.0, 1.0)


FORMULAS = {
    "lowered": "(before − after) / (before − {end})",
    "raised": "(after − before) / ({end} − before)",
    "high": "(after − {end}) / (before − {end})",
    "low": "before / after",
    "same": "1 − |after − before| / |before|",
}
"""all cut to 0 ... 1"""


def _rule(want: str, info: ValueInfo) -> tuple[str, _Share] | None:
    """(formula as text, function) for what a plan wants of a value; None where it cannot be put on 0 ... 1."""
    if want == "lower":
        kind, end = "lowered", floor_of(info)
    elif want == "higher":
        if info.highest is None:
            return None
        kind, end = "raised", info.highest
    else:
        kind, end = {"higher": "high", "lower": "low"}.get(info.better, "same"), floor_of(info)
    return FORMULAS[kind].format(end=f"{end:.4g}"), _Share(kind, end)


def floor_of(info: ValueInfo) -> float:
    """What a model that knows nothing scores: chance where it is known, else the lowest value, else 0."""
    if info.chance is not None:
        return info.chance
    return info.lowest if info.lowest is not None else 0.0


def dominated(scores: Sequence[ArmScore], one: ArmScore) -> bool:
    """Whether another arm forgot and retained at least as much, and one of the two more (point values)."""
    f, r = one.forgotten.mean, one.retained.mean
    return any(
        s.forgotten.mean >= f and s.retained.mean >= r and (s.forgotten.mean > f or s.retained.mean > r) for s in scores
    )


def score_json(problem: ProblemSummary, score: ArmScore) -> dict[str, object]:
    """One entry of `scores` in results/summary.json."""

    def terms(found: Sequence[Term]) -> list[dict[str, object]]:
        return [
            {
                "metric": t.measure.entry.name,
                "value": t.measure.info.name,
                "formula": f"clip({t.formula}, 0, 1)",
                **t.share.to_json(),
            }
            for t in found
        ]

    return {
        "problem": problem.problem,
        "model": problem.model,
        "arm": score.arm,
        "family": score.family,
        "F": score.forgotten.to_json(),
        "R": score.retained.to_json(),
        "U": score.unified.to_json(),
        "behind": score.behind.to_json() if score.behind else None,
        "forget": terms(score.forget),
        "keep": terms(score.keep),
        "left_out": [{"measure": label, "why": why} for label, why in score.left_out],
    }


FORMULA = "F = mean of the forget terms; R = harmonic mean of the keep terms; U = 2 F R / (F + R)"
