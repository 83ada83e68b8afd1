"""The arms of a plan: stages written out, or another arm with changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .check import check
from .faults import Faults, suggest
from .grammar import ArmWords
from .model import Arm
from .resolve import Resolver
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
        stages = resolver.stages(stages_node) if stages_node is not None else None
        only = _only(child, problem_labels, faults)
        if stages is not None:
            arms.append(Arm(name, stages, only))
    return tuple(arms)


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
