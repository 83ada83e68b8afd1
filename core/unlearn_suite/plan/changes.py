"""Changes to a part of a plan by paths such as `0.with.block`: what `set` and `sweep` carry out."""

from __future__ import annotations

from dataclasses import replace

from .faults import Faults
from .text import Mark, Node


def changed(node: Node, keys: list[str], value: Node, at: Mark, path: str, faults: Faults) -> Node | None:
    """`node` with the value under `keys` replaced, or None when there is no such place.

    A key that a mapping does not have yet is made: whether the objective knows it is checked with the
    stage, and told at `at`. An index must exist.
    """
    if not keys:
        return replace(value, key_at=at)
    key, rest = keys[0], keys[1:]
    child = _child(node, key, at, path, faults)
    new = changed(child, rest, value, at, path, faults) if child is not None else None
    if new is None:
        return None
    if isinstance(node.value, list):
        return replace(node, value=[new if item is child else item for item in node.value])
    return replace(node, value={**node.map, key: new})


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
