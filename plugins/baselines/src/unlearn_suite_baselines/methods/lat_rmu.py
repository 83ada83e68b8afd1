"""LAT on RMU: a perturbation of the residual stream before the steered block."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unlearn_suite import Batch, ModelShape, PlanError, Requirements, Scalars

from ..cards.lat_rmu import LatRmuConfig
from .base import nll
from .rmu import Steering


class LatRmu(Steering[LatRmuConfig]):
    """cards/lat_rmu.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        needs = super().requirements(shape)
        if needs.reads == 0:
            raise PlanError(
                "lat-rmu perturbs the block before the steered one, and block 0 has none",
                code="no-such-block",
                hint="steer block 1 or a deeper one",
            )
        return Requirements(needs.trainable, needs.reads, logits=True)

    def target_norm(self, topic: str) -> float:
        return self.config.coefficient

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        self.draw_noise()
        self._found: dict[tuple[str, ...], Tensor] = {}
        scalars: Scalars = {}
        for _ in range(self.config.updates):
            scalars = {**self.ctx.backward(self.loss, batch), **self.ctx.update()}
        return scalars

    def forget_activations(self, batch: Batch) -> Tensor:
        key = tuple(example.id for example in batch.examples)
        if key not in self._found:
            self._found[key] = self._attack(batch)
        below = self.block - 1
        h = self.ctx.policy.hidden(batch, [below])[below]
        twin = self.ctx.policy.with_hidden(batch, below, h + self._found[key])
        return self.ctx.policy.hidden(twin, [self.block])[self.block]

    def _attack(self, batch: Batch) -> Tensor:
        """[B, T, D]: the perturbation under which the forget text is most likely."""
        policy, below, c = self.ctx.policy, self.block - 1, self.config
        with torch.no_grad():
            h = policy.hidden(batch, [below])[below]
        delta = torch.zeros_like(h).requires_grad_()
        optimizer = torch.optim.AdamW([delta], lr=c.attack_lr, weight_decay=0.0)
        for _ in range(c.attack_steps):
            (delta.grad,) = torch.autograd.grad(nll(policy, policy.with_hidden(batch, below, h + delta)), [delta])
            optimizer.step()
            with torch.no_grad():
                delta.copy_(clipped(delta, c.epsilon))
        return delta.detach()


def clipped(delta: Tensor, epsilon: float) -> Tensor:
    """[..., D]: every token's perturbation at length `epsilon` at most."""
    return delta * (epsilon / delta.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
