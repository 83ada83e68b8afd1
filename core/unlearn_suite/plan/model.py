"""A resolved plan: every name found, every option checked, every default filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..specs import AttackConfig, AttackSpec, Config, DatasetSpec, MetricSpec, ObjectiveSpec, Spec, Train
from .grammar import Compute, Of, Want
from .text import Mark

Kind = Literal["objective", "dataset", "metric", "problem", "attack"]
Shipped = Literal["default", "oracle"]
"""stages that a problem brings for an arm"""
SHIPPED: tuple[Shipped, ...] = ("default", "oracle")
Begin = Literal["start", "original", "random"]
"""what an arm begins from: the model that the problem's `start` makes, the published one, or one of random weights"""


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

    @property
    def roles(self) -> dict[str, str]:
        """{data role that must be there: who reads it}."""
        watching, guard = self.train.diagnostics, self.train.stop
        found = dict.fromkeys((watching.forget, watching.retain), "`diagnostics`") if watching else {}
        if guard:
            found[guard.role or "retain"] = "`stop`"
        return found | dict.fromkeys(self.spec.roles_for(self.config), repr(self.spec.name))


Stages = tuple[Stage, ...] | Shipped


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
class Limit:
    """What a problem expects of one value of one metric entry, after any arm that unlearns."""

    metric: str
    value: str
    of: Of
    below: float | None
    above: float | None


@dataclass(frozen=True)
class Problem:
    """A problem with its data roles and metrics. `source` is distribution/name, "" when the plan wrote it.

    `start` makes the model that it begins with (() = the model itself). `default` and `oracle` are None where the
    problem brings none, or no arm asks for them. `chat`: prompts are turns of the model's chat template.
    """

    label: str
    source: str
    summary: str
    data: Mapping[str, tuple[DataUse, ...]]
    metrics: tuple[MetricUse, ...]
    default: tuple[Stage, ...] | None
    start: tuple[Stage, ...] = ()
    oracle: tuple[Stage, ...] | None = None
    chat: bool = False
    expect: tuple[Limit, ...] = ()
    dropped: Mapping[str, Mark] = field(default_factory=dict, compare=False)
    """data roles that the plan dropped, and where"""


@dataclass(frozen=True)
class Arm:
    """What is compared. `stages`: () is the untouched model, a word what each problem brings.

    Arms of one `family` differ in what was swept ("" = none). `begin` None is what the stages mean by themselves.
    """

    name: str
    stages: Stages
    only: tuple[str, ...] | None = None
    family: str = ""
    begin: Begin | None = None
    at: Mark | None = field(default=None, compare=False)

    def stages_for(self, problem: Problem) -> tuple[Stage, ...]:
        if isinstance(self.stages, tuple):
            return self.stages
        return (problem.default if self.stages == "default" else problem.oracle) or ()

    def begin_for(self, problem: Problem) -> Begin:
        """An oracle begins from the original model, every other arm as the problem does."""
        wanted = self.begin or ("original" if self.stages == "oracle" else "start")
        return "original" if wanted == "start" and not problem.start else wanted

    def applies_to(self, problem: Problem) -> bool:
        return self.only is None or problem.label in self.only


@dataclass(frozen=True)
class AttackUse:
    """An attack on what each arm has made. `scores` None: every metric entry that tells of forgetting."""

    name: str
    entry: EntryLike
    spec: AttackSpec
    config: AttackConfig
    scores: tuple[str, ...] | None
    only: tuple[str, ...] | None
    at: Mark = field(compare=False)

    def applies_to(self, problem: Problem) -> bool:
        return self.only is None or problem.label in self.only

    def scored(self, problem: Problem) -> tuple[str, ...]:
        """The problem's metric entries that are scored under attack."""
        can = [m for m in problem.metrics if not m.spec.combines]
        if self.scores is None:
            return tuple(m.name for m in can if m.want in ("lower", "higher"))
        return tuple(m.name for m in can if m.name in self.scores)


@dataclass(frozen=True)
class Gate:
    """An expectation of the results. Exactly one value of one metric of one arm on one problem."""

    problem: str
    arm: str
    metric: str
    value: str
    of: Of
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
    attacks: tuple[AttackUse, ...] = ()
    notes: tuple[str, ...] = ()
    """what is no fault, but should be known: presets that nobody has run at their scale"""
