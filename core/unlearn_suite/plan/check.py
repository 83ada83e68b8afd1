"""A tree of values against a pydantic model: every fault as one plain sentence at its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from .faults import Faults, suggest
from .text import Node

M = TypeVar("M", bound=BaseModel)
Detail = Any  # pydantic_core.ErrorDetails, a TypedDict

EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "path_type": "a path",
    "none_required": "nothing",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of {ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of {le} or less",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "union_tag_invalid": "{discriminator} to be {expected_tags}",
    "string_too_short": "text of {min_length} characters or more",
    "string_too_long": "text of {max_length} characters or fewer",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} or fewer",
    "string_pattern_mismatch": "text that matches {pattern}",
}


def check(node: Node, model: type[M], faults: Faults) -> M | None:
    """The model of a node, or None with every fault noted.

    JSON rules, strictly: a list may become a tuple and text a path, but "3" is no number and `true` is
    no 1. Path values are taken from the folder of the file they stand in and must exist.
    """
    plain = {} if node.value is None else node.plain()
    if not isinstance(plain, dict):
        faults.add(node.at, f"expected a mapping, found {node.kind()}", "plan-type")
        return None
    try:
        checked = model.model_validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        _explain(error, node, model, faults)
        return None
    before = len(faults)
    checked = _with_paths(checked, node, faults)
    return checked if len(faults) == before else None


def _explain(error: ValidationError, root: Node, model: type[BaseModel], faults: Faults) -> None:
    """Note every fault of a validation; the branches of a union become one sentence."""
    groups: dict[tuple[str | int, ...], list[tuple[int, Detail]]] = {}
    for detail in error.errors(include_url=False):
        loc = detail["loc"]
        path = _known_part(root, loc)
        groups.setdefault(path, []).append((len(loc) - len(path), detail))
    for path, found in groups.items():
        deeper = any(len(other) > len(path) and other[: len(path)] == path for other in groups)
        # A leftover of the location names a branch of a union; the branch that got further says more.
        # And a list is not too short because its items are wrong.
        plain = [detail for left, detail in found if not (deeper and _less_said(left, detail["type"]))]
        expected = [detail for detail in plain if detail["type"] in EXPECTED]
        if expected:
            _note_unexpected(expected, root, path, faults)
        for detail in plain:
            if detail["type"] not in EXPECTED:
                _note_other(detail, root, path, model, faults)


def _less_said(leftover: int, kind: str) -> bool:
    return kind == "too_short" or (leftover > 0 and kind in EXPECTED)


def _known_part(root: Node, loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """The location without what pydantic puts in between for unions and validators."""
    path: list[str | int] = []
    node = root
    for part in loc:
        child = node.under(part)
        if child is not None:
            path.append(part)
            node = child
    return tuple(path)


def _walk(root: Node, path: Sequence[str | int]) -> Node:
    node = root
    for part in path:
        child = node.under(part)
        assert child is not None, path
        node = child
    return node


def _note_unexpected(details: list[Detail], root: Node, path: tuple[str | int, ...], faults: Faults) -> None:
    node = _walk(root, path)
    wanted = list(dict.fromkeys(_expected(detail) for detail in details))
    hint = ""
    if isinstance(node.value, str):
        options = [word for detail in details for word in re.findall(r"'([^']*)'", _expected(detail))]
        hint = suggest(node.value, options) or ("for nothing write null" if node.value.lower() == "none" else "")
    elif wanted == ["text"] and isinstance(node.value, bool | int | float):
        hint = "put it in quotes"
    message = f"{_name(path)}expected {' or '.join(wanted)}, found {node.kind()}"
    faults.add(node.at, message, "plan-value", hint)


def _expected(detail: Detail) -> str:
    facts = {key: _number(value) for key, value in detail.get("ctx", {}).items()}
    words = EXPECTED[detail["type"]].format(**facts)
    return words.replace("a list", "a mapping") if facts.get("field_type") == "Dictionary" else words


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name(path: Sequence[str | int]) -> str:
    """ "'steps': " or "item 2 of 'seeds': " (people count from 1)."""
    names = [part for part in path if isinstance(part, str)]
    if not path:
        return ""
    if isinstance(path[-1], int):
        return f"item {path[-1] + 1} of {names[-1]!r}: " if names else f"item {path[-1] + 1}: "
    return f"{path[-1]!r}: "


def _note_other(
    detail: Detail, root: Node, path: tuple[str | int, ...], model: type[BaseModel], faults: Faults
) -> None:
    node, kind = _walk(root, path), detail["type"]
    if kind == "extra_forbidden":
        key = str(detail["loc"][-1])
        known = fields_at(model, path[:-1])
        hint = suggest(key, known, all_of_them="known keys") or "it takes no keys"
        faults.add(node.key_or_value, f"unknown key {key!r}", "plan-key", hint)
    elif kind == "missing":
        key = str(detail["loc"][-1])
        described = fields_at(model, path).get(key, "")
        faults.add(node.key_or_value, f"missing key {key!r}", "plan-missing-key", described)
    elif kind in ("value_error", "assertion_error"):
        said = str(detail.get("ctx", {}).get("error", detail["msg"]))
        faults.add(node.at, f"{_name(path)}{said}", "plan-value")
    else:
        said = detail["msg"][:1].lower() + detail["msg"][1:]
        faults.add(node.at, f"{_name(path)}{said}, found {node.kind()}", "plan-value")


def fields_at(model: type[BaseModel], path: Sequence[str | int]) -> dict[str, str]:
    """The keys (with their docs) that are allowed at a place below a model, over all branches of unions."""
    models = [model]
    for part in path:
        if isinstance(part, int):
            continue  # `models_in` has looked into lists and mappings already
        found: list[type[BaseModel]] = []
        for candidate in models:
            for name, info in candidate.model_fields.items():
                if part in (name, info.alias):
                    found.extend(models_in(info.annotation))
        models = found or models
    return {
        info.alias or name: info.description or ""
        for candidate in models
        for name, info in candidate.model_fields.items()
    }


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models an annotation speaks of: `list[A] | B | None` -> A, B."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from models_in(argument)


def _with_paths(checked: M, node: Node, faults: Faults) -> M:
    """The same model with every path the plan wrote made absolute; a path to nothing is a fault."""
    update = {}
    for name in checked.model_fields_set:
        alias = type(checked).model_fields[name].alias if name in type(checked).model_fields else None
        child = node.under(alias or name)
        if child is not None:
            value = getattr(checked, name)
            placed = _placed(value, child, faults)
            if placed is not value:
                update[name] = placed
    return checked.model_copy(update=update) if update else checked


def _placed(value: Any, node: Node, faults: Faults) -> Any:
    if isinstance(value, Path):
        return existing(value, node, faults)
    if isinstance(value, BaseModel):
        return _with_paths(value, node, faults)
    if isinstance(value, list | tuple):
        pairs = [(item, node.under(index)) for index, item in enumerate(value)]
        placed = [_placed(item, child, faults) if child else item for item, child in pairs]
        return type(value)(placed) if any(a is not b for a, b in zip(placed, value, strict=True)) else value
    if isinstance(value, dict):
        items = {key: (item, node.under(str(key))) for key, item in value.items()}
        new = {key: _placed(item, child, faults) if child else item for key, (item, child) in items.items()}
        return new if any(new[key] is not value[key] for key in value) else value
    return value


def existing(path: Path, node: Node, faults: Faults) -> Path:
    """A path of a plan, absolute; notes a fault when nothing is there."""
    try:
        full = (node.folder / path.expanduser()).resolve()
        there = full.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a user that is not known, a null character
        faults.add(node.at, f"{str(path)[:60]!r} is no path: {error}", "plan-missing-file", "check the path")
        return path
    if not there:
        beside = [entry.name for entry in full.parent.iterdir()] if full.parent.is_dir() else []
        hint = suggest(full.name, beside) or "check the path"
        faults.add(node.at, f"there is no file or folder {str(full)!r}", "plan-missing-file", hint)
    return full
