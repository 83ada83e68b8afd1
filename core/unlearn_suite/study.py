"""Plan x Catalog -> ordered cells, each named by a hash of everything that can change its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

Json = dict[str, Any]


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces. Equal values give equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = 64) -> str:
    """The first `length` hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Cell:
    """One problem x model x arm x seed, with every option resolved. JSON-able: it is cell.json.

    `data`: role -> [{"use", "with", "fingerprint"}]; `stages`: [{"use", "with", "train"}];
    `metrics`: [{"name", "use", "with", "data", "want", "show", "key"}], `key` naming the scores of the
    base model, which all cells with an equal key share. `use` is always "distribution/name".
    `compute` never changes a result. `plugins` maps each distribution that is used to its version.
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

    @property
    def folder(self) -> str:
        """The cell's folder name below `cells/`."""
        return f"{self.problem}.{self.model}.{self.arm}.s{self.seed}.{self.id}"

    @property
    def is_base(self) -> bool:
        """True for an arm without stages: the untouched model."""
        return not self.stages

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        """The cell of a cell.json. Raises KeyError when a field is missing; ignores unknown ones."""
        return cls(**{field.name: data[field.name] for field in fields(cls)})
