"""Directions removed from weights in closed form: one step, no gradient, and only what keeps retain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from unlearn_suite import Batch, ModelShape, Objective, PlanError, Requirements, Scalars, StageContext

from ..cards.abliteration import AbliterationConfig
from ..cards.gloss import GlossConfig
from . import spy
from .base import kl, nll

C = TypeVar("C", AbliterationConfig, GlossConfig)
DEPTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
POSITIONS = (".wpe.weight", ".embed_positions.weight")
"""learned positions [., D], which are added to the token embeddings (GPT-2, OPT)"""


class Removal(Objective[C]):
    """W <- (I - strength V V^T) W at the first step; later steps change nothing."""

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        if ctx.shape.post_norm:
            raise PlanError(
                "this model's blocks norm and scale what their output matrices write, so that a direction taken out of "
                "the matrices would come back",
                code="post-norm",
                hint="take an objective that trains",
            )

    def candidates(self) -> list[Tensor]:
        """Orthonormal [D, k] each; the last one is taken where nothing is measured."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        if self.ctx.step_index > 0:
            return {"loss": 0.0, "removed_norm": 0.0}
        candidates = [v.to(self.ctx.device) for v in self.candidates()]
        if self.config.max_kl is None:
            return {"loss": 0.0, "removed_norm": self._remove(candidates[-1])}
        found = [(self._try(candidate, batch), candidate) for candidate in candidates]
        kept = [item for item in found if item[0][0] <= self.config.max_kl]
        lowest = min(tried[0] for tried, _ in found)
        if not kept:
            self.ctx.services.warn(
                f"no direction keeps KL(base || model) on retain text within {self.config.max_kl} "
                f"(the lowest is {lowest:.3g}): nothing is removed"
            )
            return {"loss": 0.0, "removed_norm": 0.0, "kl": lowest}
        (disruption, forget), best = max(kept, key=lambda item: item[0][1])
        return {"loss": -forget, "removed_norm": self._remove(best), "kl": disruption}

    def _try(self, v: Tensor, batch: Mapping[str, Batch]) -> tuple[float, float]:
        """(KL(base || model) on retain text, forget loss) with the direction removed; the weights are put back."""
        self._remove(v)
        ctx, r = self.ctx, batch["retain"]
        disruption = ctx.total(r.mean(ctx.reference.per_token(r, kl, against=ctx.policy)))
        forget = ctx.total(nll(ctx.policy, batch["forget"]))
        ctx.views.restore()
        return disruption, forget

    def _remove(self, v: Tensor) -> float:
        """Edit the weights; returns the norm of what was removed."""
        removed = 0.0
        for name, p in self.ctx.trainable.items():
            rows = p.ndim == 1 or self._is_embedding(name) or spy.is_transposed(self.ctx, name)
            now = self.ctx.whole(p).float()
            w = now if rows else now.T  # [..., D]: the residual stream last
            edited = without(w, v, self.config.strength)
            removed += float((w - edited).square().sum())
            p.copy_(self.ctx.placed(edited if rows else edited.T, p))
        self.ctx.policy.clear()
        return removed**0.5

    def _is_embedding(self, name: str) -> bool:
        return self.ctx.shape.block_of(name) is None


class Abliteration(Removal[AbliterationConfig]):
    """cards/abliteration.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        blocks = range(shape.n_blocks)
        names = shape.select("attn_out", blocks) + shape.select("mlp_out", blocks)
        names += tuple(bias for name in names if (bias := name.removesuffix("weight") + "bias") in shape.tensors)
        if self.config.embeddings:
            names += (embedding(shape), *(name for name in shape.tensors if name.endswith(POSITIONS)))
        return Requirements(names, reads=max(self._blocks(shape)), logits=self.config.max_kl is not None)

    def _blocks(self, shape: ModelShape) -> list[int]:
        if self.config.block is not None:
            return [shape.check_block(self.config.block)]
        return sorted({min(round(depth * shape.n_blocks), shape.n_blocks - 1) for depth in DEPTHS})

    def candidates(self) -> list[Tensor]:
        differences = self._mean("forget") - self._mean("retain")
        return [(r / r.norm())[:, None] for r in differences]

    def _mean(self, role: str) -> Tensor:
        """[blocks, D]: base activations averaged over response tokens."""
        blocks = self._blocks(self.ctx.shape)
        total, count = torch.zeros(len(blocks), self.ctx.shape.hidden_size), 0
        examples = spy.some(self.ctx, role, self.config.texts)
        for batch in self.ctx.encode("mean", examples).chunks(self.ctx.train.batch):
            moved = batch.to(self.ctx.device)
            mask = moved.mask("response")
            h = self.ctx.reference.hidden(moved, blocks)
            total += torch.stack([h[block][mask].float().sum(0).cpu() for block in blocks])
            count += int(mask.sum())
            self.ctx.views.clear()
        return total / max(count, 1)


class Gloss(Removal[GlossConfig]):
    """cards/gloss.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        names = shape.select("mlp_out", range(shape.n_blocks))
        return Requirements(names, reads=shape.n_blocks - 1, logits=self.config.max_kl is not None)

    def candidates(self) -> list[Tensor]:
        c, names = self.config, list(self.ctx.trainable)
        forget, retain = (
            spy.pooled(self.ctx, spy.some(self.ctx, role, c.texts), names, "output", self.ctx.train.batch)
            for role in ("forget", "retain")
        )
        stacked = torch.cat([principal(forget[n] - retain[n].mean(0), c.per_block) for n in names])
        v = principal(stacked, c.rank).T
        return [v[:, : k + 1] for k in range(v.shape[1])]


def without(w: Tensor, v: Tensor, strength: float) -> Tensor:
    """[..., D]: rows without `strength` of their part in the span of v [D, k], which is orthonormal."""
    return w - strength * (w @ v) @ v.T


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
