"""A resolved plan: every name found, every option checked, every default filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..specs import Config, DatasetSpec, MetricSpec, ObjectiveSpec, Spec, Train
from .grammar import Compute, Want
from .text import Mark

Kind = Literal["objective", "dataset", "metric", "problem"]


class EntryLike(Protocol):
    """What a catalog knows of one registered thing."""

    @property
    def spec(self) -> Spec: ...
    @property
    def qualified(self) -> str:
        """distribution/name"""

    @property
    def distribution(self) -> str: ...
    @property
    def version(self) -> str: ...


class CatalogLike(Protocol):
    """What a plan asks of the catalog of plugins."""

    def find(self, kind: Kind, name: str) -> EntryLike:
        """The entry of a bare or qualified name. Raises PluginError when there is none or several."""
        ...

    def entries(self, kind: Kind) -> Sequence[EntryLike]: ...


@dataclass(frozen=True)
class Model:
    """A base model: `ref` is {"asset": ...}, {"hf": ..., "revision": ...} or {"path": absolute folder}."""

    label: str
    ref: Mapping[str, Any]


@dataclass(frozen=True)
class DataUse:
    """A dataset with its options."""

    entry: EntryLike
    spec: DatasetSpec
    config: Config


@dataclass(frozen=True)
class Stage:
    """An objective, its options and how it trains. `at` is where the plan names it."""

    entry: EntryLike
    spec: ObjectiveSpec
    config: Config
    train: Train
    at: Mark = field(compare=False)


@dataclass(frozen=True)
class MetricUse:
    """A metric entry of a problem. `show` names at least one value; the first is the headline."""

    name: str
    entry: EntryLike
    spec: MetricSpec
    config: Config
    data: str | None
    want: Want
    show: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """A problem with its data roles and metrics. `source` is distribution/name, "" when the plan wrote it."""

    label: str
    source: str
    summary: str
    data: Mapping[str, tuple[DataUse, ...]]
    metrics: tuple[MetricUse, ...]
    default: tuple[Stage, ...] | None


@dataclass(frozen=True)
class Arm:
    """What is compared. `stages` None means the default of each problem; () the untouched model.

    Arms of one `family` differ in what was swept ("" = none).
    """

    name: str
    stages: tuple[Stage, ...] | None
    only: tuple[str, ...] | None = None
    family: str = ""

    def stages_for(self, problem: Problem) -> tuple[Stage, ...]:
        return (problem.default or ()) if self.stages is None else self.stages

    def applies_to(self, problem: Problem) -> bool:
        return self.only is None or problem.label in self.only


@dataclass(frozen=True)
class Gate:
    """An expectation of the results. Exactly one value of one metric of one arm on one problem."""

    problem: str
    arm: str
    metric: str
    value: str
    of: Literal["change", "after", "relative_change"]
    below: float | None
    above: float | None
    at: Mark = field(compare=False)


@dataclass(frozen=True)
class Plan:
    """Everything a run needs to know."""

    name: str
    path: Path
    seeds: tuple[int, ...]
    models: tuple[Model, ...]
    problems: tuple[Problem, ...]
    arms: tuple[Arm, ...]
    compute: Compute
    gates: tuple[Gate, ...]
    plugins: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    """what is no fault, but should be known: presets that nobody has run at their scale"""
