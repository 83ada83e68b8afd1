"""Signs of failure that only the numbers of a whole run show, of any arm: judges that disagree, groups left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..specs import GROUP_BEHIND, GROUP_LEAST, JUDGES_APART
from .load import Json
from .measures import Measure, Result
from .summary import ProblemSummary
from .words import number, signed


@dataclass(frozen=True)
class Sign:
    """`reading` is beyond `level`; `text` says of what."""

    arm: str
    metric: str
    value: str
    reading: float
    level: float
    text: str


def signs(problem: ProblemSummary) -> list[Sign]:
    """In the order of the arms. A shown value in [0, 1] that a second judge gives as well (`ValueSpec.second`) should
    not change by over 0.15 more with one of the two. Of one that is to be kept, no group should fall by over 0.03 more
    than the rest; the better end of its 95 % interval counts."""
    found = [sign for measure in problem.measures for sign in (*_judges(problem, measure), *_groups(measure))]
    return [sign for arm in problem.arms for sign in found if sign.arm == arm]


def _judges(problem: ProblemSummary, measure: Measure) -> Iterator[Sign]:
    info, entry = measure.info, measure.entry
    wanted = (entry.name, info.second)
    other = next((m for m in problem.measures if (m.entry.name, m.info.name) == wanted), None)
    if not info.is_fraction or other is None or not measure.shown:
        return
    for arm, result in measure.arms.items():
        second = other.arms.get(arm)
        if result.compared is None or second is None or second.compared is None:
            continue
        changes = result.compared.change.mean, second.compared.change.mean
        apart = abs(changes[0] - changes[1])
        if apart > JUDGES_APART:
            text = (
                f"{measure.label} changed by {signed(changes[0], 3)}, and by {signed(changes[1], 3)} as a second judge "
                f"sees it ({info.second}; alarm above {JUDGES_APART:g} apart): read what the model writes"
            )
            yield Sign(arm, entry.name, info.name, apart, JUDGES_APART, text)


def _groups(measure: Measure) -> Iterator[Sign]:
    info, entry = measure.info, measure.entry
    if entry.want != "keep" or not info.is_fraction or not info.better:
        return
    for arm, result in measure.arms.items():
        for name, group in result.groups.items():
            behind = _behind(result, group, 1 if info.better == "higher" else -1)
            if behind is not None and behind > GROUP_BEHIND:
                text = (
                    f"{measure.label} of {name!r} fell by at least {number(behind, 3)} more than that of the rest "
                    f"(alarm above {GROUP_BEHIND:g}): what is near is forgotten as well"
                )
                yield Sign(arm, entry.name, info.name, behind, GROUP_BEHIND, text)


def _behind(whole: Result, group: Result, sign: int) -> float | None:
    """By how much at least a group fell more than the rest; None where one of the two is too small to tell."""
    if whole.compared is None or group.compared is None:
        return None
    rest = whole.compared.n - group.compared.n
    if min(group.compared.n, rest) < GROUP_LEAST:
        return None
    change = group.compared.change
    others = (whole.compared.n * whole.compared.change.mean - group.compared.n * change.mean) / rest
    return sign * others - (change.hi if sign > 0 else -change.lo)


def signs_json(problem: ProblemSummary) -> list[Json]:
    """For summary.json."""
    return [{"problem": problem.problem, "model": problem.model, **vars(sign)} for sign in signs(problem)]
