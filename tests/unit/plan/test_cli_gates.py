"""`expect` against results: what holds says nothing, what does not is told with its number."""

from __future__ import annotations

from typing import Any, Literal

from unlearn_suite.cli.gates import unmet_gates
from unlearn_suite.plan import Gate
from unlearn_suite.plan.text import Mark


def gate(
    of: Literal["change", "after", "relative_change"] = "after", below: float | None = None, above: float | None = None
) -> Gate:
    return Gate("p", "rmu", "recall", "exact", of, below, above, Mark("plan.yaml", 9, 5))


def result(**changes: Any) -> dict[str, Any]:
    numbers = {"mean": 0.1, "change": {"mean": -0.5}, "relative": {"mean": -0.8}}
    head = {"problem": "p", "model": "smol", "arm": "rmu", "metric": "recall", "value": "exact"}
    return {**head, **numbers, **changes}


def unmet(line: Gate, *results: dict[str, Any], partial: bool = False) -> list[str]:
    return unmet_gates([line], {"results": list(results)}, partial=partial)


def test_gates_that_hold() -> None:
    assert unmet(gate(below=0.2, above=0.05), result()) == []
    assert unmet(gate("change", below=-0.4), result()) == []
    assert unmet(gate("relative_change", below=-0.7), result()) == []


def test_gates_that_do_not_hold() -> None:
    assert unmet(gate(below=0.1), result()) == [
        "plan.yaml:9:5: recall exact of rmu on p (smol) is 0.1, expected below 0.1"
    ]
    assert unmet(gate("change", above=0), result()) == [
        "plan.yaml:9:5: change of recall exact of rmu on p (smol) is -0.5, expected above 0"
    ]
    (line,) = unmet(gate("relative_change", above=0), result())
    assert "relative change of" in line


def test_each_model_must_meet_a_gate() -> None:
    lines = unmet(gate(below=0.2), result(), result(model="big", mean=0.3))
    assert lines == ["plan.yaml:9:5: recall exact of rmu on p (big) is 0.3, expected below 0.2"]


def test_gates_without_a_number() -> None:
    other = result(arm="base")
    assert unmet(gate(below=1), other) == ["plan.yaml:9:5: recall exact of rmu on p was not measured"]
    assert unmet(gate(below=1), other, partial=True) == []
    assert unmet(gate("change", below=1), result(change=None))[0].endswith("has no value")
    assert unmet(gate(below=1), result(mean=float("nan")))[0].endswith("has no value")
