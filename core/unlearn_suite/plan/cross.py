"""Checks between the parts of a plan: roles that objectives need, and what `expect` refers to."""

from __future__ import annotations

from collections.abc import Sequence

from .arms import arm_names
from .check import check
from .faults import Faults, suggest
from .grammar import GateWords
from .model import Arm, Gate, MetricUse, Problem, Stage
from .text import Node


def check_roles(problems: Sequence[Problem], arms: Sequence[Arm], faults: Faults) -> None:
    """Every objective finds the data roles it requires in every problem it runs on."""
    for arm in arms:
        for problem in problems:
            if not arm.applies_to(problem):
                continue
            for stage in arm.stages_for(problem):
                for role, reader in _roles(stage).items():
                    if role not in problem.data:
                        message = f"{reader} needs the data role {role!r}"
                        hint = f"problem {problem.label!r} has: {', '.join(problem.data) or 'none'}"
                        faults.add(stage.at, f"{message}, which problem {problem.label!r} lacks", "plan-role", hint)


def _roles(stage: Stage) -> dict[str, str]:
    """{data role that a stage reads: who reads it}."""
    watching, guard = stage.train.diagnostics, stage.train.stop
    found = dict.fromkeys((watching.forget, watching.retain), "`diagnostics`") if watching else {}
    if guard:
        found[guard.role or "retain"] = "`stop`"
    return found | dict.fromkeys(stage.spec.roles_for(stage.config), repr(stage.spec.name))


def check_gates(
    root: Node, problems: Sequence[Problem], labels: Sequence[str], arms: Sequence[Arm], faults: Faults
) -> tuple[Gate, ...]:
    """The lines of `expect`, each pointing at a value that this plan will measure."""
    expect, arms_node = root.under("expect"), root.under("arms")
    names = arm_names(arms_node, arms) if arms_node else [arm.name for arm in arms]
    gates = []
    for node in expect.items if expect else []:
        words = check(node, GateWords, faults)
        if words is None:
            continue
        _known(node.map["problem"], "problem", words.problem, labels, faults)
        _known(node.map["arm"], "arm", words.arm, names, faults)
        problem = next((p for p in problems if p.label == words.problem), None)
        arm = next((a for a in arms if a.name == words.arm), None)
        if problem is None or arm is None:
            continue
        if not arm.applies_to(problem):
            message = f"arm {arm.name!r} does not run on problem {problem.label!r}"
            faults.add(node.map["arm"].at, message, "plan-expect", "see its `only`")
        value = _value(node, words, problem, faults)
        if value is not None:
            gate = words.model_dump(exclude={"value"})
            gates.append(Gate(**gate, value=value, at=node.at))
    return tuple(gates)


def _value(node: Node, words: GateWords, problem: Problem, faults: Faults) -> str | None:
    """The name of the value a gate is about."""
    entries: dict[str, MetricUse] = {metric.name: metric for metric in problem.metrics}
    if not _known(node.map["metric"], "metric entry", words.metric, list(entries), faults):
        return None
    entry = entries[words.metric]
    if words.value is None:
        return entry.show[0]
    ok = _known(node.map["value"], f"value of {entry.spec.name!r}", words.value, list(entry.spec.values), faults)
    return words.value if ok else None


def _known(node: Node, what: str, name: str, known: Sequence[str], faults: Faults) -> bool:
    if name not in known:
        hint = suggest(name, known, all_of_them="there are")
        faults.add(node.at, f"there is no {what} {name!r}", "plan-expect", hint)
    return name in known
