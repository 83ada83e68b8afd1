"""Everything that looks on while a stage trains: the detectors and the collapse guard, as far as the plan asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..specs import Example
from .context import StageContext
from .diagnostics import Metrics, Monitor
from .guard import Guard
from .objective import Scalars


class Watch:
    """Made on the weights that the stage begins with. `block`: the deepest block the objective reads; `metrics`: those
    of the problem."""

    def __init__(
        self, ctx: StageContext, held_out: Sequence[Example], block: int, metrics: Metrics | None = None
    ) -> None:
        options = ctx.train
        self._monitor = Monitor(ctx, options.diagnostics, block, metrics) if options.diagnostics else None
        self._guard = Guard(ctx, options.stop, held_out) if options.stop else None

    @property
    def collapse(self) -> Mapping[str, Any] | None:
        """Why the stage must end now; None while it may go on."""
        return self._guard.collapse if self._guard else None

    def before(self, step: int) -> None:
        if self._monitor:
            self._monitor.before(step)

    def after(self, step: int) -> Scalars:
        found = self._monitor.after(step) if self._monitor else {}
        return {**found, **(self._guard.after(step) if self._guard else {})}

    def close(self) -> Scalars:
        found = self._guard.close() if self._guard else {}  # first: it may give weights back
        return {**(self._monitor.close() if self._monitor else {}), **found}

    def state_dict(self) -> dict[str, Any]:
        parts = {"monitor": self._monitor, "guard": self._guard}
        return {name: part.state_dict() for name, part in parts.items() if part}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in (("monitor", self._monitor), ("guard", self._guard)):
            if part and name in state:
                part.load_state_dict(state[name])
