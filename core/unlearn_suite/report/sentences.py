"""The verdict in words: what moved, what was kept, what was not, from the data and by the rules of `judge`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .figures import share_gone
from .judge import MARKS, State
from .measures import ORACLE, Measure, Result
from .summary import ProblemSummary
from .words import listing, number, percent, signed

_VERB = {"lower": "lowered", "higher": "raised"}
_MOST_NAMED = 3


@dataclass(frozen=True)
class Point:
    """One judged measure of one arm."""

    measure: Measure
    result: Result
    state: State
    word: str
    moved: int

    @property
    def want(self) -> str:
        return self.measure.entry.want

    @property
    def text(self) -> str:
        """'forget exact 0.627 → 0.021 (−97 %)'."""
        return f"{self.measure.label} {span(self.result)}"

    @property
    def change(self) -> str:
        """The relative change, or the change where there is no relative one."""
        return change_of(self.result)

    @property
    def quoted(self) -> str:
        """The same for use within a sentence."""
        return f"“{self.measure.label}” {span(self.result)}"


@dataclass(frozen=True)
class ArmLine:
    """What one arm did: its points by wish, or why there are none."""

    arm: str
    points: tuple[Point, ...]
    missing: str = ""

    @property
    def good(self) -> bool:
        """Everything wanted moved clearly, and nothing that was to be kept is doubtful or lost."""
        return bool(self.points) and not self.doubts

    @property
    def moves(self) -> list[Point]:
        return [p for p in self.points if p.want != "keep"]

    @property
    def keeps(self) -> list[Point]:
        return [p for p in self.points if p.want == "keep"]

    @property
    def doubts(self) -> list[Point]:
        return [p for p in self.points if p.state in {"unclear", "missed"}]


def span(result: Result) -> str:
    """'0.627 → 0.021 (−97 %)', or the after value alone without a base."""
    if result.compared is None:
        return number(result.after.mean, result.info.places(result.after.mean))
    before, after = result.compared.before.mean, result.compared.after.mean
    places = result.info.places(before)
    return f"{number(before, places)} → {number(after, places)} ({change_of(result)})"


def change_of(result: Result) -> str:
    """'−97 %', or '−0.593' where the base model has 0; '' without a base."""
    if result.compared is None:
        return ""
    if result.compared.relative is not None:
        return percent(result.compared.relative.mean)
    return signed(result.compared.change.mean, result.info.places(result.compared.before.mean))


def arm_lines(problem: ProblemSummary) -> list[ArmLine]:
    """One line per arm, in the order of the plan."""
    return [_line(problem, arm) for arm in problem.arms]


def _line(problem: ProblemSummary, arm: str) -> ArmLine:
    points = []
    for measure in problem.headlines:
        result = measure.arms.get(arm)
        if result is not None and result.verdict is not None:
            verdict = result.verdict
            points.append(Point(measure, result, verdict.state, verdict.word, verdict.moved))
    if points:
        return ArmLine(arm, tuple(points))
    states = sorted({c.state for c in problem.cells_of(arm)})
    return ArmLine(arm, (), f"no result to compare yet ({listing(states)})")


def headline(problem: ProblemSummary, lines: Sequence[ArmLine]) -> tuple[State | None, str]:
    """The one sentence of a problem, with the state that marks it; None when nothing can be judged."""
    judged = [line for line in lines if line.points and line.arm not in (*problem.controls, ORACLE)]
    if not judged:
        if any(m.base for m in problem.measures):
            return None, "So far only the untouched model has scores: there is nothing to compare yet."
        return None, "Nothing has been scored yet."
    best = max(judged, key=_rank)
    told = f"{best.arm} {_deeds(best)}"
    if best.good:
        state: State = "likely" if any(p.state == "likely" for p in best.points) else "met"
        return state, f"{told}."
    state = "unclear" if all(p.state != "missed" for p in best.doubts) else "missed"
    start = "It did not do all that was wanted: " if len(judged) == 1 else "No arm did all that was wanted. Closest: "
    return state, f"{start}{told}; {_failures(best)}."


def _rank(line: ArmLine) -> tuple[bool, bool, int, int, float]:
    """All wishes first, then whether the first thing to forget is forgotten (an arm that does nothing keeps
    everything), then how many are doubtful, then lost ones, then how far the first wish went.
    """
    gone = share_gone(line.moves[0].measure, line.moves[0].result) if line.moves else None
    lost = sum(p.state == "missed" for p in line.points)
    forgot = bool(line.moves) and line.moves[0].state == "met"
    return line.good, forgot, -len(line.doubts), -lost, gone.mean if gone else 0.0


def _deeds(line: ArmLine) -> str:
    """'lowered A from 0.63 to 0.02 (−97 %) and kept B and C'."""
    done = [p for p in line.moves if p.state == "met"]
    parts = [f"{_VERB[p.want]} {p.quoted}" for p in done[:_MOST_NAMED]]
    if len(done) > _MOST_NAMED:
        parts.append(f"moved {len(done) - _MOST_NAMED} more as wanted")
    sure = [p.quoted for p in line.keeps if p.state == "met"]
    likely = [p.quoted for p in line.keeps if p.state == "likely"]
    if sure:
        parts.append(f"kept {_few(sure)}")
    if likely:
        parts.append(f"probably kept {_few(likely)}")
    return listing(parts) if parts else "did nothing that was wanted"


def _failures(line: ArmLine) -> str:
    still = [p.quoted for p in line.moves if p.state != "met" and not p.moved]
    wrong = [p.quoted for p in line.moves if p.state == "missed" and p.moved]
    unclear = [p.quoted for p in line.keeps if p.state == "unclear"]
    lost = [p.quoted for p in line.keeps if p.state == "missed"]
    parts = [
        f"no clear change of {_few(still)}" if still else "",
        f"moved the wrong way: {_few(wrong)}" if wrong else "",
        f"unclear whether kept: {_few(unclear)}" if unclear else "",
        f"not kept: {_few(lost)}" if lost else "",
    ]
    return "; ".join(p for p in parts if p)


def _few(texts: list[str]) -> str:
    if len(texts) <= _MOST_NAMED:
        return listing(texts)
    return f"{', '.join(texts[:_MOST_NAMED])} and {len(texts) - _MOST_NAMED} more"


def mark(state: State | None) -> str:
    """The symbol of a state; a dash for none."""
    return MARKS[state] if state else "–"
