"""Checks between the parts of a plan: roles that objectives need, and what `expect` refers to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .arms import arm_names
from .check import check
from .faults import Faults, suggest
from .grammar import GateWords
from .limits import value_of
from .model import Arm, Gate, MetricUse, Problem, Stage
from .text import Node


def check_roles(problems: Sequence[Problem], arms: Sequence[Arm], faults: Faults) -> None:
    """Every objective finds the data roles it requires in every problem it runs on."""
    for arm in arms:
        for problem in problems:
            if not arm.applies_to(problem):
                continue
            for stage in arm.stages_for(problem):
                _check_stage(stage, problem, faults)
    for problem in problems:
        for stage in problem.start:
            _check_stage(stage, problem, faults)


def _check_stage(stage: Stage, problem: Problem, faults: Faults) -> None:
    for role, reader in stage.roles.items():
        if role not in problem.data:
            message = f"{reader} needs the data role {role!r}"
            hint = f"problem {problem.label!r} has: {', '.join(problem.data) or 'none'}"
            at = problem.dropped.get(role, stage.at)
            faults.add(at, f"{message}, which problem {problem.label!r} lacks", "plan-role", hint)
    scored = [] if stage in problem.start else [m.name for m in problem.metrics if not m.spec.combines]
    for name in stage.train.diagnostics.metrics if stage.train.diagnostics else ():
        if name not in scored:
            hint = suggest(name, scored, all_of_them="there are") if scored else "a `start` has none to read"
            message = f"`diagnostics` scores the metric entry {name!r}, which problem {problem.label!r} lacks"
            faults.add(stage.at, message, "plan-metric", hint)


def check_shipped(problems: Sequence[Problem], arms: Sequence[Arm], faults: Faults) -> None:
    """An arm that takes what problems bring finds it in every problem it runs on."""
    for arm in arms:
        for problem in problems:
            if arm.at is None or isinstance(arm.stages, tuple) or not arm.applies_to(problem):
                continue
            if getattr(problem, arm.stages) is None:
                hint = "name the problems that do with `only`, or write the stages out"
                faults.add(arm.at, f"problem {problem.label!r} brings no {arm.stages!r}", "plan-arm", hint)


def oracle_notes(problems: Sequence[Problem], arms: Sequence[Arm]) -> Iterator[str]:
    """One for each problem with values that only an arm called `oracle` gives a meaning."""
    for problem in problems:
        if any(arm.name == "oracle" and arm.applies_to(problem) for arm in arms):
            continue
        for metric in problem.metrics:
            missing = [name for name in metric.show if metric.spec.values[name].versus]
            if missing:
                told = f"{', '.join(missing)} of {metric.name!r}"
                yield f"problem {problem.label!r} has no arm called oracle: {told} will not be told"


def check_gates(
    root: Node, problems: Sequence[Problem], labels: Sequence[str], arms: Sequence[Arm], faults: Faults
) -> tuple[Gate, ...]:
    """The lines of `expect`, each pointing at a value that this plan will measure."""
    expect, arms_node = root.under("expect"), root.under("arms")
    names = arm_names(arms_node, arms) if arms_node else [arm.name for arm in arms]
    gates: list[Gate] = []
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
        gates += _gates(node, words, problem, faults)
    return tuple(gates)


def _gates(node: Node, words: GateWords, problem: Problem, faults: Faults) -> Iterator[Gate]:
    """The gates of one line: one, or all that the problem itself expects."""
    if words.metric is None:
        if not problem.expect:
            hint = "name a `metric` with `below` or `above`"
            faults.add(node.map["problem"].at, f"problem {problem.label!r} expects nothing", "plan-expect", hint)
        for limit in problem.expect:
            yield Gate(words.problem, words.arm, **vars(limit), at=node.at)
        return
    entries: dict[str, MetricUse] = {metric.name: metric for metric in problem.metrics}
    if _known(node.map["metric"], "metric entry", words.metric, list(entries), faults):
        value = value_of(entries[words.metric], words.value, node, faults)
        if value is not None:
            limits = words.model_dump(include={"of", "below", "above"})
            yield Gate(words.problem, words.arm, words.metric, value, **limits, at=node.at)


def _known(node: Node, what: str, name: str, known: Sequence[str], faults: Faults) -> bool:
    if name not in known:
        hint = suggest(name, known, all_of_them="there are")
        faults.add(node.at, f"there is no {what} {name!r}", "plan-expect", hint)
    return name in known
