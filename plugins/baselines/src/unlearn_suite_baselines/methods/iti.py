"""ITI-like shifts of attention heads, held by the output projections' biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unlearn_suite import Batch, ModelShape, Objective, PlanError, Requirements, Scalars

from ..cards.iti import ItiConfig
from . import spy


class Iti(Objective[ItiConfig]):
    """cards/iti.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        weights = shape.select("attn_out", range(shape.n_blocks))
        biases = tuple(name.removesuffix("weight") + "bias" for name in weights)
        missing = [name for name in biases if name not in shape.tensors]
        if missing:
            raise PlanError(
                f"this model ({shape.model_type}) has no bias {missing[0]}, and iti needs one to hold its shifts",
                code="no-bias",
                hint="use abliteration, gloss or probe-directions on this model",
            )
        return Requirements(biases, reads=shape.n_blocks - 1)

    @torch.no_grad()
    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        if self.ctx.step_index > 0:
            return {"loss": 0.0, "heads": 0.0}
        biases = list(self.ctx.trainable)
        weights = [name.removesuffix("bias") + "weight" for name in biases]
        forget, retain = (self._heads(role, weights) for role in ("forget", "retain"))
        found = [(separation(forget[w][h], retain[w][h]), w, h) for w in weights for h in range(self._head_count())]
        count = max(1, round(self.config.heads * len(found)))
        chosen = sorted(found, key=lambda item: -item[0])[:count]
        for _, weight, head in chosen:
            self._shift(weight, head, forget[weight][head], retain[weight][head])
        return {"loss": 0.0, "separation_lowest": chosen[-1][0], "heads": float(count)}

    def _head_count(self) -> int:
        model: Any = self.ctx.views.replay.model
        return int(model.config.get_text_config().num_attention_heads)

    def _heads(self, role: str, weights: list[str]) -> dict[str, Tensor]:
        """{weight: [heads, N, width]}: heads' outputs, averaged over each example's response."""
        examples = spy.some(self.ctx, role, self.config.texts)
        found = spy.pooled(self.ctx, examples, weights, "input", self.ctx.train.batch)
        return {name: x.unflatten(1, (self._head_count(), -1)).transpose(0, 1) for name, x in found.items()}

    def _shift(self, weight: str, head: int, forget: Tensor, retain: Tensor) -> None:
        v, sigma = along(forget, retain)
        w = self.ctx.whole(self.ctx.views.replay.model.get_parameter(weight)).float()
        columns = w if spy.is_transposed(self.ctx, weight) else w.T  # [in, out]
        width = len(v)
        moved = (self.config.alpha * sigma * v).to(w.device) @ columns[head * width : (head + 1) * width]
        bias = self.ctx.trainable[weight.removesuffix("weight") + "bias"]
        bias.add_(self.ctx.placed(moved.to(bias.dtype), bias))


def direction(forget: Tensor, retain: Tensor) -> Tensor:
    """[width]: unit vector from the forget mean to the retain mean."""
    v = retain.mean(0) - forget.mean(0)
    return v / v.norm().clamp_min(1e-12)


def along(forget: Tensor, retain: Tensor) -> tuple[Tensor, float]:
    """(`direction`, the standard deviation of all rows along it)"""
    v = direction(forget, retain)
    return v, float((torch.cat([forget, retain]) @ v).std())


def separation(forget: Tensor, retain: Tensor) -> float:
    """Share of held-out pairs (forget, retain) that the direction of the other half orders rightly."""
    v = direction(forget[::2], retain[::2])
    low, high = forget[1::2] @ v, retain[1::2] @ v
    return float((high[None] > low[:, None]).float().mean()) if len(low) and len(high) else 0.5
