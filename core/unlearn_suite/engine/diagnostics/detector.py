"""What a detector is: scalars measured every few steps, and the levels that are alarming."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from ...errors import TrainingError
from ...specs import Diagnostics
from ..batch import Batch
from ..context import StageContext
from ..objective import Scalars
from .drift import Drift, Yardstick

ROWS = 8
"""texts per forward pass"""


@dataclass(frozen=True)
class Alarm:
    """A scalar outside [`at_least`, `at_most`] is alarming; `means` says what it then is a sign of."""

    means: str
    at_least: float | None = None
    at_most: float | None = None

    def fires(self, value: float) -> bool:
        # written so that a reading that is no number is alarming
        return (self.at_least is not None and not value >= self.at_least) or (
            self.at_most is not None and not value <= self.at_most
        )

    def excess(self, value: float) -> float:
        """How far the value is towards the alarm; larger is worse, and no number the worst."""
        if math.isnan(value):
            return math.inf
        low = self.at_least - value if self.at_least is not None else float("-inf")
        high = value - self.at_most if self.at_most is not None else float("-inf")
        return max(low, high)

    @property
    def level(self) -> str:
        parts = [f"below {self.at_least:g}"] if self.at_least is not None else []
        return " or ".join([*parts, f"above {self.at_most:g}"] if self.at_most is not None else parts)


class Bench:
    """The text that is read, and the stage it is read in. `block`: the deepest block the objective reads."""

    def __init__(self, ctx: StageContext, options: Diagnostics, block: int) -> None:
        self.ctx = ctx
        self.block = block if block >= 0 else ctx.shape.n_blocks - 1
        self.options = options
        self._fixed: dict[str, list[Batch]] = {}
        self._yardstick: Yardstick | None = None
        self._drift: Drift | None = None

    def changed(self) -> None:
        """The weights may be others now: what was measured on the ones before no longer holds."""
        self._drift = None

    def samples_after(self, done: int) -> bool:
        """Whether dear detectors are due when `done` steps are done; the end is not among them."""
        every = self.options.sample_every
        return every > 0 and done % every == 0 and done < self.ctx.train.steps

    def drift(self) -> Drift:
        """On the text to retain; measured once for all detectors that ask."""
        if self._drift is None:
            self._yardstick = self._yardstick or Yardstick(self.ctx, self.retain)
            self._drift = self._yardstick.drift()
        return self._drift

    @property
    def forget(self) -> list[Batch]:
        return self._batches(self.options.forget)

    @property
    def retain(self) -> list[Batch]:
        return self._batches(self.options.retain)

    def _batches(self, role: str) -> list[Batch]:
        if role not in self._fixed:
            self._fixed[role] = fixed_batches(self.ctx, role, self.options.examples)
        return self._fixed[role]


def fixed_batches(ctx: StageContext, role: str, count: int) -> list[Batch]:
    """`count` texts of a data role, chosen by hash. Raises `TrainingError` when the problem has no such role."""
    if not ctx.examples.get(role):
        raise TrainingError(
            f"the problem has no data role {role!r} for the diagnostics",
            code="no-such-role",
            hint="its roles: " + ", ".join(ctx.examples),
        )
    chosen = sorted(ctx.examples[role], key=lambda e: sha256(e.id.encode()).digest())[:count]
    return [batch.to(ctx.device) for batch in ctx.encode("fixed", chosen).chunks(ROWS)]


class Detector:
    """One detector. It may keep nothing that the next measurement depends on: a stage can be resumed anywhere."""

    alarms: dict[str, Alarm] = {}  # noqa: RUF012 (a class never changes it)

    def start(self, bench: Bench) -> None:
        """Before the first step (of this process), on the weights that the stage began with."""

    def is_due(self, bench: Bench, done: int) -> bool:
        """Whether to measure when `done` steps are done."""
        return done % bench.options.every == 0 or done == bench.ctx.train.steps

    def before_step(self, bench: Bench) -> None:
        """Right before a step that is measured."""

    def measure(self, bench: Bench) -> Scalars:
        """After a step that is measured. Without autograd."""
        return {}

    def close(self, bench: Bench) -> Scalars:
        """After the last step and the objective's own end. Without autograd."""
        return {}


def masked(values_bt: Sequence[Tensor], batches: Sequence[Batch]) -> Tensor:
    """[N] float32: the values at all content positions."""
    return torch.cat([v[b.mask("content")] for v, b in zip(values_bt, batches, strict=True)]).float()


def pooled(h: Tensor, batch: Batch) -> Tensor:
    """[B, D] float32: means of h [B, T, D] over each text's content tokens."""
    mask = batch.mask("content")[..., None]
    return h.float().masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp_min(1)
