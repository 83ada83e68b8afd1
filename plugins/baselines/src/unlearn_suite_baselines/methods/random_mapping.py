"""Random mapping: one fixed random vector per token id."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, LossObjective, ModelShape, Requirements, StageContext, losses

from ..cards.random_mapping import RandomMappingConfig
from .base import nll
from .circuit_breakers import average
from .trained import chosen


class TokenVectors:
    """Rows of R [V, D], drawn from (seed, token id) when they are first asked for."""

    def __init__(self, width: int, seed: int) -> None:
        self._width, self._seed = width, seed
        self._known: dict[int, Tensor] = {}

    def __call__(self, ids: Tensor) -> Tensor:
        """[..., D] for ids [...]."""
        distinct, where = ids.unique(return_inverse=True)
        rows = torch.stack([self._row(int(i)) for i in distinct.tolist()])
        return rows.to(ids.device)[where]

    def _row(self, token: int) -> Tensor:
        if token not in self._known:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + token)
            self._known[token] = torch.randn(self._width, generator=generator)
        return self._known[token]


class RandomMapping(LossObjective[RandomMappingConfig]):
    """cards/random_mapping.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        last = shape.n_blocks - 1
        return Requirements(chosen(shape, self.config), reads=last, logits=True, reference=False)

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.vectors = TokenVectors(ctx.shape.hidden_size, ctx.seed)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        return Loss(
            {
                "forget": mapped(self.ctx, batch["forget"], self.vectors),
                "retain": nll(self.ctx.policy, batch["retain"]),
            },
            {"retain": self.config.retain_weight},
        )


def mapped(ctx: StageContext, batch: Batch, vectors: TokenVectors) -> Tensor:
    """mean over blocks and tokens of 1 - |cos(h, R[id])|."""
    blocks = range(ctx.shape.n_blocks)
    target = vectors(batch.input_ids)
    h = ctx.policy.hidden(batch, blocks)
    return average([batch.mean(1.0 - losses.cosine(h[b], target).abs()) for b in blocks])
