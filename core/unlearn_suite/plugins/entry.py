"""What the host knows of a plugin (`PluginReport`) and of one thing that a plugin provides (`Entry`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..specs import Spec

Kind = Literal["objective", "dataset", "metric", "problem", "attack"]
Status = Literal["ok", "broken", "incompatible", "empty", "duplicate", "off"]
KINDS: tuple[Kind, ...] = ("objective", "dataset", "metric", "problem", "attack")


@dataclass(frozen=True)
class Entry:
    """One registered spec. `qualified` is "distribution/name"; `roots` are the plugin's own folders or file."""

    spec: Spec
    qualified: str
    distribution: str
    version: str
    roots: tuple[Path, ...] = field(default=(), compare=False, repr=False)

    @property
    def kind(self) -> Kind:
        return self.spec.kind


@dataclass(frozen=True)
class PluginReport:
    """How loading one plugin went.

    `where` is file:line of the author's code that failed; `message` one sentence; `action` one next step;
    `provides` the qualified names, `attempted` the bare names that were registered before it failed;
    `notes` what is not wrong enough to refuse the plugin. Without a fault the texts are empty.
    """

    status: Status
    distribution: str
    version: str
    entry_point: str
    target: str
    where: str = ""
    message: str = ""
    action: str = ""
    provides: tuple[str, ...] = ()
    attempted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    roots: tuple[Path, ...] = field(default=(), compare=False, repr=False)

    @property
    def ok(self) -> bool:
        return self.status == "ok"
