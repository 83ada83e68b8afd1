"""The attacks of a plan, and whether every problem has what they need."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast

from ..specs import AttackConfig, AttackSpec
from .check import check
from .faults import Faults, suggest
from .grammar import AttackWords
from .model import AttackUse, Problem
from .resolve import Resolver
from .text import Node


def read_attacks(
    node: Node | None, resolver: Resolver, labels: Sequence[str], problems: Sequence[Problem]
) -> tuple[AttackUse, ...]:
    """Every attack that can be carried out; what is wrong goes into the faults. `labels`: of all problems spoken of."""
    uses: list[AttackUse] = []
    for child in node.items if node is not None else []:
        use = _attack(child, resolver, labels)
        if use is None:
            continue
        if any(use.name == other.name for other in uses):
            message = f"there are two attacks called {use.name!r}"
            resolver.faults.add(child.at, message, "plan-attack", "give one another `name`")
        _check_points(use, resolver.faults)
        for problem in problems:
            if use.applies_to(problem):
                _check_problem(use, child, problem, resolver.faults)
        uses.append(use)
    return tuple(uses)


def _attack(node: Node, resolver: Resolver, labels: Collection[str]) -> AttackUse | None:
    if isinstance(node.value, str):
        node = Node({"use": node}, node.at, node.key_at, node.folder)
    words = check(node, AttackWords, resolver.faults)
    found = resolver.spec("attack", node, AttackSpec)
    if found is None:
        return None
    config = resolver.options(node, found[1].config)
    if config is None or words is None:
        return None
    named = node.under("only")
    for label in named.items if named is not None else []:
        if label.value not in labels:
            hint = suggest(str(label.value), labels, all_of_them="there are")
            resolver.faults.add(label.at, f"there is no problem {label.value!r}", "plan-attack", hint)
    return AttackUse(
        words.name or found[1].name,
        *found,
        cast(AttackConfig, config),
        tuple(words.scores) if words.scores else None,
        tuple(words.only) if words.only else None,
        node.at,
    )


def _check_points(use: AttackUse, faults: Faults) -> None:
    """No two points have one name, which is what their scores are called."""
    try:
        names = [point.name for point in use.config.points()]
    except Exception:  # told as the plugin's where cells are made
        return
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        message = f"attack {use.name!r} is scored at two points called {twice!r}"
        faults.add(use.at, message, "plan-attack", "give its options values that differ")


def _check_problem(use: AttackUse, node: Node, problem: Problem, faults: Faults) -> None:
    """The problem has the roles that the attacker reads, and the metric entries that are to be scored."""
    for role in use.spec.roles_for(use.config):
        if role not in problem.data:
            message = f"attack {use.name!r} needs the data role {role!r}, which problem {problem.label!r} lacks"
            hint = f"name another of its roles ({', '.join(problem.data)}) under `with`, or other problems with `only`"
            faults.add(node.at, message, "plan-role", hint)
    known = [m.name for m in problem.metrics if not m.spec.combines]
    scores = node.under("scores")
    for name in scores.items if scores is not None else []:
        if name.value not in known:
            hint = suggest(str(name.value), known, all_of_them="it has")
            message = f"problem {problem.label!r} scores no metric entry {name.value!r}"
            faults.add(name.at, message, "plan-attack", hint)
    if use.scores is None and not use.scored(problem):
        message = f"problem {problem.label!r} has no metric entry that tells of forgetting"
        faults.add(node.at, message, "plan-attack", "name those to score under attack with `scores`")
