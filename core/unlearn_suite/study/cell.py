"""A cell as plain data: what is run, and what of it is scored under attack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..specs import AttackPoint

Json = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One problem x model x arm x seed, with every option resolved. JSON-able: it is cell.json.

    `data`: role -> [{"use", "with", "fingerprint"}]; `stages`: [{"use", "with", "train"}];
    `metrics`: [{"name", "use", "with", "data", "want", "show", "key", "combines", "summary", "values"}], `key` naming
    the scores of the base model, which all cells with an equal key share, `combines` as in `MetricSpec` (such an
    entry is not scored), and `values` holding each value's `ValueSpec`. `use` is always "distribution/name".
    `compute` never changes a result. `plugins` maps each distribution that is used to its version.
    `start`: what the stages begin from, {"from", "control"}: the published model ("original"), one of random weights
    ("random"), or ("start") the model that its "stages" with "seed" make of the roles "data", named by "key".
    "control": the problem itself begins from another one, so this arm only stands beside the others.
    `chat`: prompts are turns of the model's chat template, in training and evaluation.
    `attacks`, on the unlearned weights: [{"name", "use", "with", "points", "scores", "data", "key"}], `scores` naming
    the metric entries that are scored at each of the `points` ({"strength", "at"}), `data` the roles that the attack
    sees. `training`: {"data", "key"}, the roles that the stages see and a name of everything that decides the weights
    they end with: cells with an equal key take them over from one another. {} without stages.
    """

    id: str
    problem: str
    model: str
    arm: str
    seed: int
    model_ref: Json
    data: dict[str, list[Json]]
    stages: list[Json]
    metrics: list[Json]
    precision: str
    compute: Json
    plugins: dict[str, str]
    summary: Json
    start: Json = field(default_factory=lambda: {"from": "original", "control": False})
    chat: bool = False
    attacks: list[Json] = field(default_factory=list)
    training: Json = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The cell's folder name below `cells/`."""
        return f"{self.problem}.{self.model}.{self.arm}.s{self.seed}.{self.id}"

    @property
    def is_base(self) -> bool:
        """True for an arm without stages that begins as the problem does: the untouched model."""
        return not self.stages and not self.start["control"]

    @property
    def trains(self) -> bool:
        """False when no stage is ever run for this cell."""
        return bool(self.stages or self.start.get("stages"))

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        """The cell of a cell.json. Raises KeyError when a field is missing; ignores unknown ones."""
        later = ("start", "chat", "attacks", "training")
        return cls(**{one.name: data[one.name] for one in fields(cls) if one.name not in later or one.name in data})


@dataclass(frozen=True)
class Attacked:
    """A metric entry that is scored at a point of an attack."""

    attack: str
    point: AttackPoint
    metric: str

    @property
    def name(self) -> str:
        """What its scores are called."""
        return f"{self.metric}@{self.attack} {self.point.name}"


def attacked(attacks: Sequence[Mapping[str, Any]]) -> Iterator[Attacked]:
    """All that the `attacks` of a cell score, in the order in which they do."""
    for attack in attacks:
        for point in attack["points"]:
            yield from (Attacked(attack["name"], AttackPoint(**point), metric) for metric in attack["scores"])
