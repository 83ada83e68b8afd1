"""Representation rerouting, plain and with orthogonality between examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, LossObjective, ModelShape, Requirements, StageContext, losses

from ..cards.circuit_breakers import CircuitBreakersConfig, ReroutingConfig
from ..cards.orth_circuit_breakers import OrthCircuitBreakersConfig
from .trained import chosen

R = TypeVar("R", bound=ReroutingConfig)
Hidden = Mapping[int, Tensor]


class Rerouting(LossObjective[R]):
    """Losses on the outputs [B, T, D] of target blocks."""

    depths: tuple[float, ...] = ()

    def requirements(self, shape: ModelShape) -> Requirements:
        targets = self.target_blocks(shape)
        trained = chosen(shape, self.config, range(targets[-1] + 1))
        return Requirements(trained, reads=max(self.held_blocks(shape)))

    def target_blocks(self, shape: ModelShape) -> list[int]:
        if self.config.targets is not None:
            return sorted({shape.check_block(block) for block in self.config.targets})
        return sorted({min(round(depth * shape.n_blocks), shape.n_blocks - 1) for depth in self.depths})

    def held_blocks(self, shape: ModelShape) -> list[int]:
        """Blocks at which retain activations are held."""
        return self.target_blocks(shape)

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.targets, self.held = self.target_blocks(ctx.shape), self.held_blocks(ctx.shape)

    def rerouted(self, f: Batch, h: Hidden) -> Tensor:
        base = self.ctx.reference.hidden(f, self.targets)
        return average([f.mean(losses.cosine(h[b], base[b]).clamp_min(0.0)) for b in self.targets])

    def held_still(self, r: Batch) -> Tensor:
        h, base = (view.hidden(r, self.held) for view in (self.ctx.policy, self.ctx.reference))
        return average([r.mean(losses.distance(h[b], base[b])) for b in self.held])


class CircuitBreakers(Rerouting[CircuitBreakersConfig]):
    """cards/circuit_breakers.py"""

    depths = (9 / 32, 19 / 32)

    def held_blocks(self, shape: ModelShape) -> list[int]:
        return list(range(shape.n_blocks)) if self.config.retain_at == "all" else self.target_blocks(shape)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        s = self.ctx.step_index / (2 * self.ctx.train.steps)
        h = self.ctx.policy.hidden(batch["forget"], self.targets)
        return Loss(
            {"forget": self.rerouted(batch["forget"], h), "retain": self.held_still(batch["retain"])},
            {"forget": self.config.alpha * (1 - s), "retain": self.config.alpha * s * self.config.retain_weight},
        )


class OrthCircuitBreakers(Rerouting[OrthCircuitBreakersConfig]):
    """cards/orth_circuit_breakers.py"""

    depths = (1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6)

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        ctx.require_whole_batch("orth-circuit-breakers compares the examples of a batch", gathers=True)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        s = self.ctx.step_index / self.ctx.train.steps
        f, c = batch["forget"], self.config
        h = self.ctx.policy.hidden(f, self.targets)
        return Loss(
            {
                "forget": self.rerouted(f, h),
                "retain": self.held_still(batch["retain"]),
                "orth": average([self._apart(f, h[b]) for b in self.targets]),
            },
            {"forget": c.remove * (1 - 0.25 * s), "retain": c.retain * s, "orth": c.orth * s},
        )

    def _apart(self, f: Batch, h: Tensor) -> Tensor:
        mask = f.mask("content")
        length = mask.sum(1).clamp_min(1)
        pooled = h.float().masked_fill(~mask[..., None], 0.0).sum(1) / length[:, None]
        return apart(self.ctx.rows(f, pooled), self.ctx.rows(f, length)) / f.shares


def apart(pooled: Tensor, length: Tensor) -> Tensor:
    """Mean over pairs of examples of relu(cos) of their pooled activations [N, D], times the mean length [N]; 0 for no
    pair."""
    n = len(pooled)
    cos = losses.cosine(pooled[:, None].expand(n, n, -1), pooled[None])
    others = ~torch.eye(n, dtype=torch.bool, device=pooled.device)
    return cos.clamp_min(0.0)[others].sum() / max(n * (n - 1), 1) * length.float().mean()


def average(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).mean()
