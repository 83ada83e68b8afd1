"""The lines of `expect` against the numbers of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..plan import Gate
from ..plan.limits import outside
from ..report.expected import number_of


def unmet_gates(gates: Sequence[Gate], summary: Mapping[str, Any], *, partial: bool = False) -> list[str]:
    """One sentence for each gate that does not hold, on any model, in the order of the plan.

    `summary` is the content of results/summary.json. A gate that nothing was measured for does not hold,
    unless only a part of the cells was asked for (`partial`).
    """
    sentences = []
    for gate in gates:
        results = [result for result in summary["results"] if _is_about(gate, result)]
        if not results and not partial:
            sentences.append(f"{gate.at}: {_subject(gate)} was not measured")
        for result in results:
            sentences.extend(_broken(gate, result, summary["results"]))
    return sentences


def _is_about(gate: Gate, result: Mapping[str, Any]) -> bool:
    return all(result[key] == getattr(gate, key) for key in ("problem", "arm", "metric", "value"))


def _subject(gate: Gate) -> str:
    of = "" if gate.of == "after" else f"{gate.of.replace('_', ' ')} of "
    return f"{of}{gate.metric} {gate.value} of {gate.arm} on {gate.problem}"


def _broken(gate: Gate, result: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    number = number_of(gate.of, result, results)
    place = f"{gate.at}: {_subject(gate)} ({result['model']})"
    if number is None or not math.isfinite(number):
        yield f"{place} has no value"
        return
    for limit in outside(number, gate.below, gate.above):
        yield f"{place} is {number:.4g}, expected {limit}"
