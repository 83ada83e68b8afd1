"""conformance.yaml: what a plugin's author tells the kit, in the words of a plan.

The file lies beside the plugin's code (`<stem>.conformance.yaml` beside a single file) and is optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ...plan.check import check
from ...plan.faults import Faults
from ...plan.text import Mark, Node, read_yaml
from ...specs import Config

FILE = "conformance.yaml"


class CaseWords(Config):
    """Options, data and model that the checks of an entry run with."""

    options: dict[str, Any] | None = Field(None, alias="with")
    """options of the entry (none = its defaults)"""
    train: dict[str, Any] = Field(default_factory=dict)
    """how an objective trains, as beside `use` in a plan"""
    data: dict[str, Any] = Field(default_factory=dict)
    """role -> dataset as in a plan, or a list of texts or examples; `examples` for a metric"""
    model: dict[str, Any] = Field(default_factory=dict)
    """arguments of `testing.tiny.tiny_model`"""


class KnownWords(Config):
    """Values that are known beforehand: worked out by hand, not by the metric."""

    model: Literal["uniform", "oracle"] = "uniform"
    """uniform: every token of the tiny tokenizer's vocabulary is equally likely; oracle: continues each prompt
    with its text"""
    options: dict[str, Any] | None = Field(None, alias="with")
    """options of the metric"""
    examples: list[Any] = Field(min_length=1)
    """texts, or examples as mappings"""
    values: dict[str, float] = Field(min_length=1)
    """value name -> what it is over all examples"""
    tolerance: float = Field(1e-3, gt=0)
    """largest relative difference; absolute where the value is 0"""


class DirectionWords(Config):
    """What a good and a bad model write, for a metric whose values say which direction is better."""

    options: dict[str, Any] | None = Field(None, alias="with")
    """options of the metric"""
    good: list[Any] = Field(min_length=1)
    """examples whose text a good model gives"""
    bad: list[str] = Field(default_factory=list)
    """the texts a bad model gives instead, one per example (none = the bad model is a random one)"""
    values: list[str] = Field(default_factory=list)
    """values to compare (none = the first that has a better direction)"""


class EntryWords(Config):
    """What is told of one objective, dataset, metric, problem or attack, or of the plugin itself."""

    cases: list[Any] = Field(default_factory=list)
    """what to run the checks with, one after the other (none = the defaults)"""
    known: list[Any] = Field(default_factory=list)
    """known answers of a metric"""
    direction: dict[str, Any] | None = None
    """a good and a bad model for a metric"""
    splits: dict[str, list[str]] = Field(default_factory=dict)
    """option of a dataset -> its values that must share no example"""
    expected: dict[str, str] = Field(default_factory=dict, alias="expected-failures")
    """check id -> why it is right that it fails; a check that passes all the same is told"""
    unavailable: dict[str, str] = Field(default_factory=dict)
    """check id, or the beginning of ids and `*` -> why it cannot be run here (no network, say)"""


class SheetWords(Config):
    """The whole file."""

    conformance: Literal[1]
    """version of the format"""
    plugin: dict[str, Any] = Field(default_factory=dict)
    """about the plugin itself"""
    objective: dict[str, Any] = Field(default_factory=dict)
    """about its objectives, by name"""
    dataset: dict[str, Any] = Field(default_factory=dict)
    """about its datasets"""
    metric: dict[str, Any] = Field(default_factory=dict)
    """about its metrics"""
    problem: dict[str, Any] = Field(default_factory=dict)
    """about its problems"""
    attack: dict[str, Any] = Field(default_factory=dict)
    """about its attacks"""


def empty(folder: Path = Path()) -> Node:
    """A mapping without anything."""
    mark = Mark(FILE, 1, 1)
    return Node({}, mark, mark, folder)


@dataclass(frozen=True)
class Told:
    """One part of a sheet: its words, and the tree with places that they came from."""

    words: EntryWords = field(default_factory=EntryWords)
    node: Node = field(default_factory=empty)

    def parts(self, key: str) -> list[Node]:
        """The items of a list in it."""
        child = self.node.under(key)
        return child.items if child else []


def sheet_path(roots: Sequence[Path]) -> Path | None:
    """The sheet beside a plugin's code, if it has one."""
    for root in roots:
        path = root / FILE if root.is_dir() else root.with_name(f"{root.stem}.{FILE}")
        if path.is_file():
            return path
    return None


def read_sheet(path: Path) -> Node:
    """The tree of a sheet, its outer words checked. Raises `PlanErrors`."""
    faults = Faults()
    root = read_yaml(path, faults)
    if root is not None:
        check(root, SheetWords, faults)
    faults.stop(str(path))
    assert root is not None
    return root


def told_of(root: Node | None, kind: str, name: str = "") -> Told:
    """What a sheet tells of a plugin (kind "plugin") or of one of its entries. Raises `PlanErrors`."""
    node = root.under(kind) if root else None
    if name and node is not None:
        node = node.under(name)
    if node is None:
        return Told(node=empty(root.folder if root else Path()))
    faults = Faults()
    words = check(node, EntryWords, faults)
    faults.stop(node.at.file)
    assert words is not None
    return Told(words, node)
