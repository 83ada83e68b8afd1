"""YAML text -> a tree of values that know their place (file:line:col), with YAML-1.2 scalars.

PyYAML follows YAML 1.1, where `no` is false, `1e-5` is a string and `010` is eight. Here the scalars of
YAML 1.2's core schema hold: only `true` and `false` are booleans, `1e-5` is a float, and a number with a
leading zero stays text (it is a hash or a label far more often than a number).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from .faults import Faults

Scalar = str | int | float | bool | None
MAX_NODES = 50_000

# (tag, pattern, first characters), tried in this order for every plain scalar
RESOLVERS = (
    ("null", r"(?:null|Null|NULL|~|)", ["n", "N", "~", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))", list("-+.")),
)
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, order=True)
class Mark:
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    col: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}"


@dataclass(frozen=True)
class Node:
    """A value and where it stands. `value` is a dict of nodes, a list of nodes or a scalar.

    `key_at` is the place of the key, where the value stands under one. `folder` is that of the file:
    relative paths in it start there. Nodes are never changed: merging makes new ones, so that every
    value of a merged tree still knows its own file, line and column.
    """

    value: dict[str, Node] | list[Node] | Scalar
    at: Mark
    key_at: Mark | None = None
    folder: Path = field(default=Path(), compare=False)

    @property
    def map(self) -> dict[str, Node]:
        """The items of a mapping; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """The items of a list; empty for anything else."""
        return self.value if isinstance(self.value, list) else []

    @property
    def key_or_value(self) -> Mark:
        return self.key_at or self.at

    def plain(self) -> Any:
        """The value without places: dicts, lists, scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def under(self, key: str | int) -> Node | None:
        """The child under a key or an index, if there is one."""
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]
        return None

    def kind(self) -> str:
        """What the value is, in words, for 'found ...'."""
        return describe(self.plain())


def describe(value: Any) -> str:
    """A found value in words: short values are quoted, long ones are named by their type."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else "a long text"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    return str(value)


class PlanLoader(yaml.SafeLoader):
    """SafeLoader with the scalars above."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own shape)


def add_resolvers(target: Any) -> None:
    """Give a PyYAML loader or dumper the scalars of this module, after those it has."""
    for name, pattern, first in RESOLVERS:
        target.add_implicit_resolver(_TAG + name, re.compile(rf"^{pattern}$"), first)


add_resolvers(PlanLoader)


def read_yaml(path: Path, faults: Faults, *, text: str | None = None) -> Node | None:
    """Parse a file (or `text` in its name). None, with the faults noted, when there is no tree at all."""
    name = str(path)
    start = Mark(name, 1, 1)
    try:
        source = path.read_text(encoding="utf-8") if text is None else text
    except FileNotFoundError:
        faults.add(name, "there is no such file", "plan-missing", "check the path")
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        faults.add(name, f"the file cannot be read: {reason}", "plan-unreadable")
        return None
    root = _compose(source, start, faults)
    return _Builder(name, path.resolve().parent, faults).build(root) if root else None


def _compose(source: str, start: Mark, faults: Faults) -> yaml.Node | None:
    """PyYAML's node tree of a text, or None with the reason noted."""
    at = start
    try:
        root = yaml.compose(source, Loader=PlanLoader)
        if root is None:
            faults.add(at, "the file is empty", "plan-empty", "start it with `plan: 1`")
        return root
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Mark(start.file, mark.line + 1, mark.column + 1) if mark else start
        said = " ".join(part for part in (error.context, error.problem) if part)
    except yaml.YAMLError as error:
        said = str(error).splitlines()[0]
    except RecursionError:
        said = "it is nested too deeply"
    faults.add(at, f"this is not valid YAML: {said}", "plan-yaml")
    return None


class _Builder:
    """PyYAML nodes -> our nodes, noting duplicate keys, unknown tags and endless aliases."""

    def __init__(self, name: str, folder: Path, faults: Faults) -> None:
        self.name, self.folder, self.faults = name, folder, faults
        self.count = 0
        self.open: set[int] = set()

    def build(self, node: yaml.Node) -> Node | None:
        try:
            return self._build(node)
        except _TooMuchError as error:
            self.faults.add(self._mark(error.node), str(error), "plan-yaml")
            return None

    def _mark(self, node: yaml.Node) -> Mark:
        return Mark(self.name, node.start_mark.line + 1, node.start_mark.column + 1)

    def _build(self, node: yaml.Node) -> Node:
        self.count += 1
        if self.count > MAX_NODES:
            raise _TooMuchError(f"the file has more than {MAX_NODES:,} values (aliases counted out)", node)
        if id(node) in self.open:
            raise _TooMuchError("this alias contains itself", node)
        self.open.add(id(node))
        value: dict[str, Node] | list[Node] | Scalar
        if isinstance(node, yaml.MappingNode):
            value = self._mapping(node)
        elif isinstance(node, yaml.SequenceNode):
            value = [self._build(child) for child in node.value]
        else:
            value = self._scalar(node)
        self.open.discard(id(node))
        return Node(value, self._mark(node), None, self.folder)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        built: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, child in node.value:
            at = self._mark(key)
            if not isinstance(key, yaml.ScalarNode):
                self.faults.add(at, "a key must be a word", "plan-key")
            elif key.value == "<<" and key.style is None:
                for source in self._merge_sources(self._build(child)):
                    merged = {**source, **merged}
            elif key.value in built:
                first = built[key.value].key_at
                message = f"duplicate key {key.value!r}"
                hint = f"it is already on line {first.line if first else 0}"
                self.faults.add(at, message, "plan-duplicate", hint)
            else:
                built[key.value] = replace(self._build(child), key_at=at)
        return {**built, **{key: value for key, value in merged.items() if key not in built}}

    def _merge_sources(self, node: Node) -> Iterator[dict[str, Node]]:
        for source in node.items or [node]:
            if isinstance(source.value, dict):
                yield source.value
            else:
                self.faults.add(source.at, f"`<<` merges mappings, found {source.kind()}", "plan-key")

    def _scalar(self, node: yaml.Node) -> Scalar:
        text, tag = str(node.value), node.tag.removeprefix(_TAG)
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() == "true"
        try:
            if tag == "int":
                return int(text)
            if tag == "float":
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        except ValueError:
            tag = f"!{tag} on {text[:40]!r}"
        if tag != "str":
            message = f"the tag {tag!r} is not supported"
            self.faults.add(self._mark(node), message, "plan-tag", "remove it")
        return text


class _TooMuchError(Exception):
    def __init__(self, message: str, node: yaml.Node) -> None:
        super().__init__(message)
        self.node = node
