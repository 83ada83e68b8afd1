"""The page: one HTML file that opens offline, holds everything, and escapes all that a model wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .. import __version__
from ..store import write_text
from . import words
from .alarms import Sign, signs
from .attacks import AttackTable, attack_tables, half_text
from .chart import SHAPES, marker
from .cost import cost_table
from .curves import ArmCurves, arm_curves
from .expected import Expectation, expectations
from .figures import arm_points, forget_measure, scatter
from .front import front
from .judge import FRACTION_TOLERANCE, MARKS, RELATIVE_TOLERANCE, State, ValueInfo
from .load import CellData, RunData
from .measures import Measure
from .samples import SampleSet, sample_sets
from .scores import FORMULA, ArmScore, arm_scores
from .sentences import ArmLine, arm_lines, headline, mark
from .shown import ShownStage, by_arm, shown_stages
from .summary import ProblemSummary, summarize

HERE = Path(__file__).parent
MOST_GROUPS = 80
_WANTS = {"lower": "should get lower", "higher": "should get higher", "keep": "should stay", "watch": "is only watched"}
_MADE = {
    "exp-mean": "exp of the weighted mean",
    "auc": "of non-members against members",
    "ks": "of “{of}”, against the arm oracle",
    "privleak": "of “{of}”, relative to the arm oracle",
}
_STATES = {"done": "✓", "failed": "✗", "interrupted": "‖", "running": "▸", "pending": "·"}


@dataclass(frozen=True)
class GroupTable:
    """One shown measure by group: a row per group, base and arms beside each other. `cut`: groups left out."""

    measure: Measure
    names: tuple[str, ...]
    cut: int = 0


@dataclass(frozen=True)
class Section:
    """Everything the page says about one problem on one model."""

    anchor: str
    problem: ProblemSummary
    state: State | None
    sentence: str
    lines: Sequence[ArmLine]
    picture: Markup
    outside: Sequence[str]
    signs: Sequence[Sign]
    expected: Sequence[Expectation]
    scores: Sequence[ArmScore]
    front: Markup
    attacks: Sequence[AttackTable]
    samples: Sequence[SampleSet]
    curves: Sequence[ArmCurves]
    told: dict[str, list[ShownStage]]
    groups: Sequence[GroupTable]

    @property
    def shown(self) -> list[Measure]:
        return [m for m in self.problem.measures if m.shown and (m.base or m.arms)]

    @property
    def details(self) -> list[Measure]:
        return [m for m in self.problem.measures if not m.shown and (m.base or m.arms)]


def write_report(run_path: Path) -> Path:
    """Write report/index.html of a run in any state and return its path.

    Raises `PlanError` when the folder is not a run, `PrerequisiteError` when it cannot be written.
    """
    run = RunData(run_path)
    path = run_path / "report" / "index.html"
    write_text(path, render(run, summarize(run)))
    return path


def render(run: RunData, problems: Sequence[ProblemSummary]) -> str:
    """The page's text."""
    template = _environment().get_template("page.html.j2")
    sections = [_section(run, problem, f"p{i}") for i, problem in enumerate(problems)]
    failed = [c for c in run.cells if c.state in {"failed", "interrupted"}]
    return template.render(
        run=run,
        sections=sections,
        failed=failed,
        counts=_counts(run.cells),
        cost=cost_table([*run.starts, *run.cells]),
        glossary=_glossary(problems),
        plugins=_plugins(run.cells),
        facts=_facts(run),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        version=__version__,
        fraction_tolerance=FRACTION_TOLERANCE,
        relative_tolerance=RELATIVE_TOLERANCE,
        score_formula=FORMULA,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(
        marks=MARKS,
        mark=mark,
        wants=_WANTS,
        state_marks=_STATES,
        key=_key,
        error_of=_error,
        unit_note=_unit_note,
        half_text=half_text,
    )
    environment.filters.update(
        number=words.number,
        signed=words.signed,
        percent=words.percent,
        between=words.between,
        decimals=words.decimals,
        seconds=words.seconds,
        moment=_moment,
    )
    return environment


def _section(run: RunData, problem: ProblemSummary, anchor: str) -> Section:
    lines = arm_lines(problem)
    scores = arm_scores(problem)
    state, sentence = headline(problem, lines)
    inside = {point.arm for point in arm_points(problem)}
    outside = [arm for arm in problem.arms if arm not in inside] if forget_measure(problem) else []
    return Section(
        anchor=anchor,
        problem=problem,
        state=state,
        sentence=sentence,
        lines=lines,
        picture=Markup(scatter(problem, f"{anchor}-scatter")),
        outside=outside,
        signs=signs(problem),
        expected=expectations(run, problem),
        scores=scores,
        front=Markup(front(scores, problem.problem, f"{anchor}-front")),
        attacks=attack_tables(run, problem, f"{anchor}-attack"),
        samples=sample_sets(run, problem),
        curves=arm_curves(run, problem, f"{anchor}-curve"),
        told=by_arm(shown_stages(problem, f"{anchor}-told")),
        groups=_groups(problem),
    )


def _groups(problem: ProblemSummary) -> list[GroupTable]:
    found = []
    for measure in problem.measures:
        results = ([measure.base] if measure.base else []) + list(measure.arms.values())
        names = sorted({name for result in results for name in result.groups})
        if names:
            found.append(GroupTable(measure, tuple(names[:MOST_GROUPS]), max(len(names) - MOST_GROUPS, 0)))
    return found


def _counts(cells: Sequence[CellData]) -> list[tuple[str, int]]:
    states = [c.state for c in cells]
    return [(state, states.count(state)) for state in _STATES if state in states]


def _glossary(problems: Sequence[ProblemSummary]) -> list[tuple[str, str, list[ValueInfo]]]:
    """(metric, its summary, its values), each metric once."""
    found: dict[str, tuple[str, dict[str, ValueInfo]]] = {}
    for measure in (m for p in problems for m in p.measures):
        _, values = found.setdefault(measure.entry.use, (measure.entry.summary, {}))
        values.setdefault(measure.info.name, measure.info)
    return [(use, summary, list(values.values())) for use, (summary, values) in found.items()]


def _plugins(cells: Sequence[CellData]) -> dict[str, str]:
    found: dict[str, str] = {}
    for cell in cells:
        found |= {str(k): str(v) for k, v in (cell.cell.get("plugins") or {}).items()}
    return dict(sorted(found.items()))


def _facts(run: RunData) -> list[tuple[str, str]]:
    """The plain facts of run.json: when, where, with what."""
    skip = {"name", "format", "cells"}
    facts = []
    for name, value in run.run.items():
        if name in skip or value is None or isinstance(value, dict):
            continue
        if isinstance(value, list):
            value = " ".join(str(item) for item in value)
        facts.append((name, _moment(value) if name in {"created", "started", "ended"} else str(value)))
    return facts


def _moment(value: Any) -> str:
    """'2026-01-31T12:00:05.123Z' -> '2026-01-31 12:00:05 UTC'."""
    text = str(value or "")
    return f"{text[:10]} {text[11:19]} UTC" if len(text) >= 20 and text[10:11] == "T" else text


def _error(cell: CellData) -> dict[str, str]:
    """The error's parts as text; empty ones for a cell that stopped without saying why."""
    error = cell.status.get("error")
    parts = error if isinstance(error, dict) else {"message": error or ""}
    return {name: str(parts.get(name) or "") for name in ("code", "message", "where", "hint")}


def _key(series: int) -> Markup:
    """The small marker that stands for an arm in every picture of a problem."""
    shape = marker(SHAPES[series % len(SHAPES)], 7, 7, 4.6, f"series s{series % 6} solid")
    return Markup(f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true">{shape}</svg>')


def _unit_note(info: ValueInfo) -> str:
    """'0 to 1, higher is better where it is to be kept, chance 0.25'."""
    ends = ""
    if info.lowest is not None or info.highest is not None:
        low = f"{info.lowest:g}" if info.lowest is not None else "−∞"
        high = f"{info.highest:g}" if info.highest is not None else "∞"
        ends = f"{low} to {high}"
    better = f"{info.better} is better where it is to be kept" if info.better else ""
    chance = f"chance {words.number(info.chance, 2)}" if info.chance is not None else ""
    averaged = _MADE.get(info.versus or info.aggregate, "").format(of=info.of)
    return ", ".join(part for part in (info.unit, ends, better, chance, averaged) if part)
