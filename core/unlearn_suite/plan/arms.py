"""The arms of a plan: stages written out or shipped by problems, another arm with changes, sweeps over some keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .changes import changed
from .check import check
from .faults import Faults, suggest
from .grammar import ArmWords
from .model import SHIPPED, Arm, Begin, Problem, Shipped, Stages
from .resolve import Resolver
from .sweep import sweep_points
from .text import Mark, Node


def read_arms(
    node: Node | None, resolver: Resolver, problem_labels: Sequence[str], problems: Sequence[Problem]
) -> tuple[Arm, ...]:
    """Every arm that can be used, in the order of the plan; what is wrong goes into the faults.

    Without `arms` in the plan: the untouched model, each problem's own default, and the oracle of those that ship one.
    """
    if node is None or not isinstance(node.value, dict):
        return (Arm("base", ()), Arm("default", "default"), *_oracle(problems))
    faults = resolver.faults
    good = {name: child for name, child in node.map.items() if check(child, ArmWords, faults) is not None}
    arms = []
    for name, child in good.items():
        stages_node = _stages(name, node, faults, ())
        only = _only(child, problem_labels, faults)
        family = child.under("family")
        for label, stages_of_arm in _points(name, child, stages_node, faults):
            stages = _resolved(stages_of_arm, resolver)
            if stages is not None:
                shared = str(family.plain()) if family and family.value else name if child.under("sweep") else ""
                arms.append(Arm(label, stages, only, shared, _begin(name, node), stages_of_arm.at))
    _check_names_differ(arms, node, faults)
    return tuple(arms)


def wanted_from_problems(node: Node | None) -> frozenset[Shipped]:
    """Which stages of problems the arms of a plan take."""
    if node is None or not isinstance(node.value, dict):
        return frozenset(SHIPPED)
    words = [child.under("stages") for child in node.map.values()]
    values = [word.value for word in words if word is not None]
    return frozenset(shipped for shipped in SHIPPED if shipped in values)


def _oracle(problems: Sequence[Problem]) -> tuple[Arm, ...]:
    labels = tuple(problem.label for problem in problems if problem.oracle is not None)
    return (Arm("oracle", "oracle", None if len(labels) == len(problems) else labels),) if labels else ()


def _resolved(node: Node, resolver: Resolver) -> Stages | None:
    for shipped in SHIPPED:
        if node.value == shipped:
            return shipped
    return resolver.stages(node)


def _begin(name: str, arms: Node) -> Begin | None:
    """The arm's own `from`, or that of the arm it is like."""
    seen = set()
    while name in arms.map and name not in seen:
        seen.add(name)
        arm = arms.map[name]
        own, like = arm.under("from"), arm.under("like")
        if own is not None and isinstance(own.value, str):
            return "random" if own.value == "random" else "original"
        name = str(like.value) if like is not None else ""
    return None


def arm_names(node: Node, arms: Sequence[Arm]) -> list[str]:
    """What an arm can be called elsewhere in the plan: a swept arm by the names of its points."""
    written = [name for name, child in node.map.items() if not child.under("sweep")]
    return list(dict.fromkeys([*written, *(arm.name for arm in arms)]))


def _points(name: str, arm: Node, stages: Node | None, faults: Faults) -> Iterator[tuple[str, Node]]:
    """(name, stages) of the arm itself, or of every point of its sweep."""
    sweep = arm.under("sweep")
    if stages is None:
        return
    if sweep is None or not sweep.map:
        yield name, stages
        return
    for label, values in sweep_points(name, sweep.map):
        point: Node | None = stages
        for path, value in values.items():
            if point is not None:
                point = _set(point, path, value, sweep.map[path].key_or_value, faults)
        if point is not None:
            yield label, point


def _check_names_differ(arms: Sequence[Arm], node: Node, faults: Faults) -> None:
    names = [arm.name for arm in arms]
    for name in sorted({n for n in names if names.count(n) > 1}):
        at = node.map[name].key_or_value if name in node.map else node.at
        faults.add(at, f"two arms would be called {name!r}", "plan-arm", "rename the one that is not swept")


def _stages(name: str, arms: Node, faults: Faults, seen: tuple[str, ...]) -> Node | None:
    """The stages of an arm with `like` and `set` carried out. None when that cannot be done."""
    arm = arms.map[name]
    like = arm.under("like")
    if like is None or not isinstance(like.value, str):
        return arm.under("stages")
    parent = like.value
    if parent not in arms.map:
        faults.add(like.at, f"there is no arm {parent!r}", "plan-arm", suggest(parent, arms.map))
        return None
    if parent in (*seen, name):
        message = f"arm {name!r} is like itself: {' -> '.join([*seen, name, parent])}"
        faults.add(like.at, message, "plan-arm", "give one of them `stages`")
        return None
    stages = _stages(parent, arms, faults, (*seen, name))
    changes = arm.under("set")
    for path, value in (changes.map if changes else {}).items():
        if stages is not None:
            at = value.key_or_value
            stages = _set(stages, path, value, at, faults)
    return stages


def _set(stages: Node, path: str, value: Node, at: Mark, faults: Faults) -> Node | None:
    if isinstance(stages.value, str):
        hint = f"change it with the problem's own `set`, as in {{use: NAME, set: {{{stages.value}.{path}: ...}}}}"
        faults.add(at, f"{path!r} is in what each problem ships as {stages.value!r}", "plan-set", hint)
        return None
    return changed(stages, path.split("."), value, at, path, faults)


def _only(arm: Node, labels: Sequence[str], faults: Faults) -> tuple[str, ...] | None:
    node = arm.under("only")
    if node is None or node.value is None:
        return None
    for item in node.items:
        if isinstance(item.value, str) and item.value not in labels:
            hint = suggest(item.value, labels, all_of_them="its problems")
            faults.add(item.at, f"this plan has no problem {item.value!r}", "plan-problem", hint)
    return tuple(str(item.value) for item in node.items)
