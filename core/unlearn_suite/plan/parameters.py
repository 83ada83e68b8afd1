"""What a plan tells a problem of a plugin under `with`, and how it comes into the problem's file.

A file declares `parameters`; `$name` in its texts stands for what the plan gave, or for the default. A text that is
nothing but `$name` becomes the value itself (a list, a number); inside a longer text the value is put in; a text with a
parameter that is null is null. `$$` is a dollar sign. A data role with `when: $name` is there only if that is not null,
and so are the metric entries that read it, and what is expected of them. A value keeps its place in the plan, so what
is wrong with it is told there, and a relative path starts at the plan's folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..specs import Config, ProblemSpec
from .check import check, existing
from .faults import Faults, suggest
from .text import Node

_SLOT = re.compile(r"\$(?:(\$)|([a-z]\w*)|\{([a-z]\w*)\})")
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "text": (str, "text"),
    "path": (str, "a path"),
    "integer": (int, "a whole number"),
    "number": ((int, float), "a number"),
    "flag": (bool, "true or false"),
    "list": (list, "a list"),
    "any": (object, "anything"),
}


class ParameterWords(Config):
    """A value that a plan gives the problem under `with`; `$name` in the problem's file stands for it."""

    summary: str
    """what it is; said when it is missing"""
    type: Literal["text", "path", "integer", "number", "flag", "list", "any"] = "text"
    """what may be given; a path starts at the plan's folder and must exist; any: whatever the option takes"""
    default: Any = None
    """what is taken when the plan gives nothing (no such key = the plan must give it)"""

    @property
    def required(self) -> bool:
        return "default" not in self.model_fields_set


def read_parameters(body: Node, faults: Faults) -> dict[str, ParameterWords]:
    """The parameters that a problem's file declares."""
    declared = body.under("parameters")
    found = {name: check(node, ParameterWords, faults) for name, node in (declared.map if declared else {}).items()}
    return {name: words for name, words in found.items() if words is not None}


def filled(body: Node, use: Node, spec: ProblemSpec, faults: Faults) -> Node | None:
    """The file of a problem with the values of the plan's entry `use` put in. None, with faults, without them."""
    before = len(faults)
    parameters = read_parameters(body, faults)
    given = use.under("with")
    if given is not None and given.value is not None and not isinstance(given.value, dict):
        return None  # the check of the words has told
    told = given.map if given else {}
    values: dict[str, Node] = {}
    declared = body.under("parameters")
    names = list(declared.map) if declared else []
    for name, node in told.items():
        if name not in names:
            hint = suggest(name, names, all_of_them="it has") or "it has none"
            faults.add(node.key_or_value, f"problem {spec.name!r} has no option {name!r}", "plan-key", hint)
    for name, words in parameters.items():
        value = _value(name, words, told.get(name), body, use, spec, faults)
        if value is not None:
            values[name] = value
    if len(faults) > before:
        return None
    rest = {key: node for key, node in body.map.items() if key != "parameters"}
    put = replace(body, value=rest)
    return _present(_put(put, values, faults)) if parameters else put


def _present(body: Node) -> Node:
    """Without the data roles whose `when` is null, and without what is about them."""
    data, metrics, expect = (body.under(key) for key in ("data", "metrics", "expect"))
    roles = data.map if data is not None else {}
    absent = {role for role, node in roles.items() if (when := node.under("when")) is not None and when.value is None}
    items = dict(body.map)
    if data is not None:
        kept = {role: _plain_role(node) for role, node in roles.items() if role not in absent}
        items["data"] = replace(data, value=kept)
    if metrics is not None and absent:
        entries = [entry for entry in metrics.items if _of(entry, "data") not in absent]
        gone = {_name(entry) for entry in metrics.items} - {_name(entry) for entry in entries}
        items["metrics"] = replace(metrics, value=entries)
        if expect is not None:
            items["expect"] = replace(expect, value=[line for line in expect.items if _of(line, "metric") not in gone])
    return replace(body, value=items)


def _plain_role(node: Node) -> Node:
    if "when" not in node.map:
        return node
    return replace(node, value={key: child for key, child in node.map.items() if key != "when"})


def _name(entry: Node) -> str:
    named = entry.value if isinstance(entry.value, str) else _of(entry, "name") or _of(entry, "use")
    return str(named).rpartition("/")[2]


def _of(node: Node, key: str) -> object:
    child = node.under(key)
    return child.value if child is not None else None


def _value(
    name: str, words: ParameterWords, given: Node | None, body: Node, use: Node, spec: ProblemSpec, faults: Faults
) -> Node | None:
    """The value of one parameter: the plan's or the default."""
    if given is None:
        if words.required:
            at = (use.under("with") or use.under("use") or use).key_or_value
            message = f"problem {spec.name!r} needs {name!r} under `with`"
            faults.add(at, message, "plan-parameter", words.summary)
            return None
        declared = body.map["parameters"].map[name]
        return declared.map["default"]
    if given.value is None and not words.required:
        return given
    kind, told = _KINDS[words.type]
    wrong = isinstance(given.value, bool) and kind not in (bool, object)
    if wrong or not isinstance(given.value, kind):
        faults.add(given.at, f"{name!r}: expected {told}, found {given.kind()}", "plan-value")
        return None
    if words.type == "path":
        existing(Path(str(given.value)), given, faults)
    return given


def _put(node: Node, values: Mapping[str, Node], faults: Faults) -> Node:
    if isinstance(node.value, dict):
        return replace(node, value={key: _put(child, values, faults) for key, child in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, value=[_put(child, values, faults) for child in node.value])
    return _put_text(node, node.value, values, faults) if isinstance(node.value, str) else node


def _put_text(node: Node, text: str, values: Mapping[str, Node], faults: Faults) -> Node:
    names = [match[2] or match[3] for match in _SLOT.finditer(text) if not match[1]]
    for name in names:
        if name not in values:
            hint = suggest(name, values, all_of_them="its parameters")
            faults.add(node.at, f"there is no parameter {name!r}", "plan-fragment", hint)
            return node
    if not names:
        return replace(node, value=_SLOT.sub("$", text))
    first = values[names[0]]
    if _SLOT.fullmatch(text):
        return replace(first, key_at=node.key_at)
    if any(values[name].value is None for name in names):
        return replace(first, value=None, key_at=node.key_at)
    whole = _SLOT.sub(lambda match: "$" if match[1] else str(values[match[2] or match[3]].plain()), text)
    return replace(first, value=whole, key_at=node.key_at)
