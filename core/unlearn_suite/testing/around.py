"""An objective with something put around it; and the model moved a little away from where it began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..engine.context import StageContext
from ..engine.objective import Objective, Requirements, Scalars
from ..engine.shape import ModelShape
from ..engine.shards import placed_like, whole

SIZE = 0.02
"""noise, relative to a tensor's root mean square"""


class Around(Objective[Any]):
    """Does what `inner` does."""

    def __init__(self, inner: Objective[Any]) -> None:
        super().__init__(inner.config)
        self.inner = inner

    def requirements(self, shape: ModelShape) -> Requirements:
        return self.inner.requirements(shape)

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.inner.setup(ctx)

    def step(self, batch: Mapping[str, Any]) -> Scalars:
        return self.inner.step(batch)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)

    def finish(self) -> Scalars:
        return self.inner.finish()


class Displaced(Around):
    """Begins a little away from the base model. At the base model itself whatever compares the policy with the
    reference has a kink or no slope, so the first gradient would lack it, or be nothing but rounding."""

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        displace(ctx)
        self.start = {name: p.detach().clone() for name, p in ctx.trainable.items()}


@torch.no_grad()
def displace(ctx: StageContext) -> None:
    """Add the same small noise to the trained tensors each time, on one process or on several."""
    noise = torch.Generator().manual_seed(0)
    for p in ctx.trainable.values():
        r = torch.randn(p.shape, generator=noise, dtype=torch.float64).to(p.device)
        size = SIZE * whole(p.detach()).double().square().mean().sqrt()
        p.add_(placed_like((size * r).to(p.dtype), p))
    ctx.views.clear()
