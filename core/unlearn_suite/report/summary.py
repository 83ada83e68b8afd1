"""Every number of a run: per problem, model, metric value and arm, with interval, change and verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..store import write_json
from .combine import combined
from .load import CellData, Entry, Json, RunData, groups_of
from .measures import EntryTable, Measure, Result
from .words import listing


@dataclass(frozen=True)
class ProblemSummary:
    """One problem on one model: its measures in the plan's order, and the arms in the order of their cells.

    `start`: what its arms begin from, as a sentence ("" = the model itself). `controls`: arms that begin from something
    else, to stand beside the others.
    """

    problem: str
    model: str
    about: str
    base_arm: str
    arms: tuple[str, ...]
    cells: tuple[CellData, ...]
    measures: tuple[Measure, ...]
    start: str = ""
    controls: frozenset[str] = frozenset()

    @property
    def headlines(self) -> list[Measure]:
        return [m for m in self.measures if m.headline]

    def cells_of(self, arm: str) -> list[CellData]:
        return [c for c in self.cells if c.arm == arm]


def summarize(run: RunData) -> list[ProblemSummary]:
    """All problems of a run."""
    return [_problem(run, problem, model, cells) for problem, model, cells in groups_of(run.cells)]


def _problem(run: RunData, problem: str, model: str, cells: Sequence[CellData]) -> ProblemSummary:
    base_cell = next((c for c in cells if c.is_base), None)
    arms = dict.fromkeys(c.arm for c in cells if c is not base_cell)
    base_arm = base_cell.arm if base_cell else "base"
    entries: dict[str, Entry] = {}
    for cell in cells:
        for name, entry in cell.entries.items():
            entries.setdefault(name, entry)
    tables = {e.name: EntryTable(run, e, base_cell, cells, base_arm) for e in entries.values() if not e.combines}
    measures: list[Measure] = []
    for entry in entries.values():
        if entry.combines:
            measures += combined(entry, list(tables.values()), base_arm, list(arms))
        else:
            measures += tables[entry.name].measures(list(arms))
    about = cells[0].cell.get("summary") or {}
    text = about.get("summary") or about.get("problem") if isinstance(about, dict) else about
    return ProblemSummary(
        problem,
        model,
        str(text or ""),
        base_arm,
        tuple(arms),
        tuple(cells),
        tuple(measures),
        _start(model, cells),
        frozenset(cell.arm for cell in cells if cell.start.get("control")),
    )


def _start(model: str, cells: Sequence[CellData]) -> str:
    """What the arms of a problem begin from, and which do not."""
    stages: list[Json] = next((found for cell in cells if (found := cell.start.get("stages"))), [])
    told = [f"{str(s.get('use', '')).rpartition('/')[2]} ({(s.get('train') or {}).get('steps')} steps)" for s in stages]
    text = f"Arms begin from {model} after {', then '.join(told)}." if told else ""
    for kind, words in (("original", f"{model} as published"), ("random", "random weights")):
        arms = dict.fromkeys(c.arm for c in cells if c.start.get("control") and c.start.get("from") == kind)
        if arms:
            text += f" {listing(list(arms))} begin{'' if len(arms) > 1 else 's'} from {words}."
    return text.strip()


def to_json(run: RunData, problems: Sequence[ProblemSummary]) -> Json:
    """The content of results/summary.json."""
    results = [result for problem in problems for result in results_json(problem)]
    from .alarms import signs_json  # these read summaries
    from .attacks import attack_tables, attacks_json
    from .expected import expectations, expected_json
    from .scores import FORMULA, arm_scores, score_json

    scores = [score_json(p, score) for p in problems for score in arm_scores(p)]
    return {
        "summary": 1,
        "run": run.name,
        "results": results,
        "scores": scores,
        "score_formula": FORMULA,
        "expected": [line for p in problems for line in expected_json(p, expectations(run, p))],
        "alarms": [line for p in problems for line in signs_json(p)],
        "attacks": [line for p in problems for line in attacks_json(p, attack_tables(run, p, ""))],
        "cells": [_cell_json(c) for c in run.cells],
    }


def results_json(problem: ProblemSummary) -> list[Json]:
    """`results` of summary.json for one problem: a mapping per arm, entry and value."""
    return [_result_json(problem, m, r) for m in problem.measures for r in _all(m)]


def _all(measure: Measure) -> list[Result]:
    return ([measure.base] if measure.base else []) + list(measure.arms.values())


def _result_json(problem: ProblemSummary, measure: Measure, result: Result) -> Json:
    entry = measure.entry
    return {
        "problem": problem.problem,
        "model": problem.model,
        "arm": result.arm,
        "metric": entry.name,
        "use": entry.use,
        "value": measure.info.name,
        "want": entry.want,
        "headline": measure.headline,
        **_numbers(result),
        "verdict": {"state": result.verdict.state, "word": result.verdict.word} if result.verdict else None,
        "groups": {name: _numbers(inner) for name, inner in result.groups.items()},
    }


def _numbers(result: Result) -> Json:
    compared = result.compared
    return {
        "n": result.n,
        "seeds": result.seeds,
        **result.after.to_json(),
        "paired": compared.n if compared else None,
        "base": compared.before.to_json() if compared else None,
        "change": compared.change.to_json() if compared else None,
        "relative": compared.relative.to_json() if compared and compared.relative else None,
    }


def _cell_json(cell: CellData) -> Json:
    head = cell.cell
    return {
        "id": head.get("id"),
        "folder": cell.name,
        "problem": cell.problem,
        "model": cell.model,
        "arm": cell.arm,
        "seed": cell.seed,
        "state": cell.state,
        "seconds": cell.seconds,
        "cost": cell.folder.cost or None,
        "error": cell.status.get("error"),
    }


def write_summary(run_path: Path) -> Path:
    """Compute and write results/summary.json (atomically); returns its path."""
    run = RunData(run_path)
    path = run_path / "results" / "summary.json"
    write_json(path, to_json(run, summarize(run)))
    return path
