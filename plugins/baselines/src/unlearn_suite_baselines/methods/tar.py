"""TAR: a random-mapping start, then the tamper-resistance loop."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, ModelShape, Objective, Requirements, Scalars, StageContext, losses

from ..cards.tar import TarConfig
from .base import nll
from .circuit_breakers import average
from .random_mapping import TokenVectors, mapped
from .trained import chosen

BETA_DRAWS, BETA_RANK = 8, 6
"""the 6th smallest of 8 uniform draws is Beta(6, 3)"""


class Tar(Objective[TarConfig]):
    """cards/tar.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        return Requirements(chosen(shape, self.config), reads=shape.n_blocks - 1, logits=True)

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.vectors = TokenVectors(ctx.shape.hidden_size, ctx.seed)
        ctx.split_role("forget", "tar-attack", "tar-held-out")

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        if self.ctx.step_index < self.config.mapping * self.ctx.train.steps:
            scalars = self.ctx.backward(self._mapping_loss, batch)
        else:
            scalars = self.ctx.backward(self._retain_loss, {"retain": batch["retain"]})
            scalars |= self._add_tamper_gradient()
        return {**scalars, **self.ctx.update()}

    def _mapping_loss(self, batch: Mapping[str, Batch]) -> Loss:
        forget = mapped(self.ctx, batch["forget"], self.vectors)
        return Loss({"forget": forget, "retain": nll(self.ctx.policy, batch["retain"])})

    def _retain_loss(self, batch: Mapping[str, Batch]) -> Loss:
        r, blocks = batch["retain"], range(self.ctx.shape.n_blocks)
        h, base = (view.hidden(r, blocks) for view in (self.ctx.policy, self.ctx.reference))
        held = average([r.mean(losses.distance(h[b], base[b])) for b in blocks])
        return Loss({"retain": nll(self.ctx.policy, r), "held": held})

    def _add_tamper_gradient(self) -> Scalars:
        ctx, c = self.ctx, self.config
        x = ctx.draw("tar-held-out", ctx.step_index)
        rate = c.inner_lr[int(self._uniform() * len(c.inner_lr))]
        switch = self._switch_step() if self._uniform() < c.switch else 0

        def inner(k: int) -> Tensor:
            source = "retain" if k < switch else "tar-attack"
            return nll(ctx.policy, ctx.draw(source, ctx.step_index * c.inner_steps + k, c.inner_batch))

        found = ctx.adversary.attack(inner, lambda: self._tamper(x), lr=rate, readouts=readouts(c), optimizer="adamw")
        ctx.policy.clear()
        for name, parameter in ctx.trainable.items():
            update = found.gradient[name].to(parameter.dtype)
            parameter.grad = update if parameter.grad is None else parameter.grad + update
        return {
            "forget_entropy_attacked": -found.outer_losses[max(found.outer_losses)],
            "inner_displacement": found.displacement,
        }

    def _tamper(self, x: Batch) -> Tensor:
        """Minus the mean entropy over prompts and responses."""
        return -x.mean(self.ctx.policy.per_token(x, entropy))

    def _switch_step(self) -> int:
        draws = sorted(self._uniform() for _ in range(BETA_DRAWS))
        return round(draws[BETA_RANK - 1] * self.config.inner_steps)

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self.ctx.generator))


def readouts(config: TarConfig) -> dict[int, float]:
    """{inner step k: weight}: 4 exp(lambda (k - K)) at every fourth step, the last one always."""
    last = config.inner_steps
    steps = sorted({*range(config.readout_every, last + 1, config.readout_every), last})
    return {k: config.tamper_weight * math.exp(config.decay * (k - last)) for k in steps}


def entropy(logits: Tensor, _: Tensor) -> Tensor:
    return losses.entropy(logits)
