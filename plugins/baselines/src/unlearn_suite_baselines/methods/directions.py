"""Directions removed from weights in closed form: one step, no gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from unlearn_suite import Batch, Config, ModelShape, Objective, PlanError, Requirements, Scalars

from ..cards.abliteration import AbliterationConfig
from ..cards.gloss import GlossConfig
from . import spy

C = TypeVar("C", bound=Config)
DEPTH = 0.6


class Removal(Objective[C]):
    """W <- (I - strength V V^T) W at the first step; later steps change nothing."""

    def basis(self) -> Tensor:
        """[D, k], orthonormal."""
        raise NotImplementedError

    def strength(self) -> float:
        raise NotImplementedError

    @torch.no_grad()
    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        if self.ctx.step_index > 0:
            return {}
        v = self.basis().to(self.ctx.device)
        removed = 0.0
        for name, p in self.ctx.trainable.items():
            rows = self._is_embedding(name) or spy.is_transposed(self.ctx, name)
            w = p.float() if rows else p.float().T  # [..., D]: the residual stream last
            part = (w @ v) @ v.T
            removed += float(part.square().sum())
            edited = w - self.strength() * part
            p.copy_(edited if rows else edited.T)
        return {"loss": 0.0, "removed_norm": removed**0.5}

    def _is_embedding(self, name: str) -> bool:
        return self.ctx.shape.block_of(name) is None


class Abliteration(Removal[AbliterationConfig]):
    """cards/abliteration.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        blocks = range(shape.n_blocks)
        names = shape.select("attn_out", blocks) + shape.select("mlp_out", blocks)
        if self.config.embeddings:
            names += (embedding(shape),)
        return Requirements(names, reads=self._block(shape))

    def _block(self, shape: ModelShape) -> int:
        block = self.config.block
        return shape.check_block(min(round(DEPTH * shape.n_blocks), shape.n_blocks - 1) if block is None else block)

    def strength(self) -> float:
        return self.config.strength

    def basis(self) -> Tensor:
        r = self._mean("forget") - self._mean("retain")
        return (r / r.norm())[:, None]

    def _mean(self, role: str) -> Tensor:
        """[D]: base activations averaged over response tokens."""
        block = self._block(self.ctx.shape)
        total, count = torch.zeros(self.ctx.shape.hidden_size), 0
        examples = spy.some(self.ctx, role, self.config.texts)
        for batch in self.ctx.encode("mean", examples).chunks(self.ctx.train.batch):
            moved = batch.to(self.ctx.device)
            h = self.ctx.reference.hidden(moved, [block])[block][moved.mask("response")]
            total, count = total + h.float().sum(0).cpu(), count + len(h)
            self.ctx.views.clear()
        return total / max(count, 1)


class Gloss(Removal[GlossConfig]):
    """cards/gloss.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        return Requirements(shape.select("mlp_out", range(shape.n_blocks)), reads=shape.n_blocks - 1)

    def strength(self) -> float:
        return self.config.strength

    def basis(self) -> Tensor:
        c, names = self.config, list(self.ctx.trainable)
        forget, retain = (
            spy.pooled(self.ctx, spy.some(self.ctx, role, c.texts), names, "output", self.ctx.train.batch)
            for role in ("forget", "retain")
        )
        stacked = torch.cat([principal(forget[n] - retain[n].mean(0), c.per_block) for n in names])
        return principal(stacked, c.rank).T


def principal(x: Tensor, count: int) -> Tensor:
    """[k, D]: top right singular vectors of rows [N, D]."""
    found: Tensor = torch.linalg.svd(x, full_matrices=False).Vh[:count]
    return found


def embedding(shape: ModelShape) -> str:
    """The token embedding's name: the one matrix [V, D] that comes before the blocks."""
    base = shape.blocks_path.rpartition(".")[0]
    for name, size in shape.tensors.items():
        inside = name.startswith(f"{base}.") if base else True
        if inside and size == (shape.vocab_size, shape.hidden_size) and shape.block_of(name) is None:
            return name
    raise PlanError("this model's token embedding was not found", code="no-such-tensor", hint="set embeddings: false")
