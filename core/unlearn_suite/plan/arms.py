"""The arms of a plan: stages written out, or another arm with changes, and sweeps over some of their keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .check import check
from .faults import Faults, suggest
from .grammar import ArmWords
from .model import Arm
from .resolve import Resolver
from .sweep import sweep_points
from .text import Mark, Node


def read_arms(node: Node | None, resolver: Resolver, problem_labels: Sequence[str]) -> tuple[Arm, ...]:
    """Every arm that can be used, in the order of the plan; what is wrong goes into the faults.

    Without `arms` in the plan: the untouched model and each problem's own default.
    """
    if node is None or not isinstance(node.value, dict):
        return (Arm("base", ()), Arm("default", None))
    faults = resolver.faults
    good = {name: child for name, child in node.map.items() if check(child, ArmWords, faults) is not None}
    arms = []
    for name, child in good.items():
        stages_node = _stages(name, node, faults, ())
        only = _only(child, problem_labels, faults)
        family = child.under("family")
        for label, stages_of_arm in _points(name, child, stages_node, faults):
            stages = resolver.stages(stages_of_arm)
            if stages is not None:
                shared = str(family.plain()) if family and family.value else name if child.under("sweep") else ""
                arms.append(Arm(label, stages, only, shared))
    _check_names_differ(arms, node, faults)
    return tuple(arms)


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
        changed: Node | None = stages
        for path, value in values.items():
            if changed is not None:
                changed = _changed(changed, path.split("."), value, sweep.map[path].key_or_value, path, faults)
        if changed is not None:
            yield label, changed


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
            stages = _changed(stages, path.split("."), value, at, path, faults)
    return stages


def _changed(node: Node, keys: list[str], value: Node, at: Mark, path: str, faults: Faults) -> Node | None:
    """`node` with the value under `keys` replaced, or None when there is no such place.

    A key that a mapping does not have yet is made: whether the objective knows it is checked with the
    stage, and told at `at`. An index must exist.
    """
    if not keys:
        return replace(value, key_at=at)
    key, rest = keys[0], keys[1:]
    child = _child(node, key, at, path, faults)
    changed = _changed(child, rest, value, at, path, faults) if child is not None else None
    if changed is None:
        return None
    if isinstance(node.value, list):
        return replace(node, value=[changed if item is child else item for item in node.value])
    return replace(node, value={**node.map, key: changed})


def _child(node: Node, key: str, at: Mark, path: str, faults: Faults) -> Node | None:
    if isinstance(node.value, list):
        index = int(key) if key.isdecimal() else -1
        if 0 <= index < len(node.items):
            return node.items[index]
        count = len(node.items)
        hint = f"it counts from 0 and has {count}" if count else "the list is empty"
        faults.add(at, f"{path!r} does not exist: {key!r} is no item of the list", "plan-set", hint)
        return None
    if node.value is not None and not isinstance(node.value, dict):
        faults.add(at, f"{path!r} does not exist: there is nothing below {node.kind()}", "plan-set")
        return None
    return node.map.get(key, Node(None, at, at, node.folder))


def _only(arm: Node, labels: Sequence[str], faults: Faults) -> tuple[str, ...] | None:
    node = arm.under("only")
    if node is None or node.value is None:
        return None
    for item in node.items:
        if isinstance(item.value, str) and item.value not in labels:
            hint = suggest(item.value, labels, all_of_them="its problems")
            faults.add(item.at, f"this plan has no problem {item.value!r}", "plan-problem", hint)
    return tuple(str(item.value) for item in node.items)
