"""UNDIAL."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unlearn_suite import Batch, losses

from ..cards.undial import UndialConfig
from .base import ForgetRetain
from .everywhere import outside, piece_mean

IGNORED = 100
Lower = Callable[[Tensor, Tensor, float], Tensor]


class Undial(ForgetRetain[UndialConfig]):
    """cards/undial.py"""

    reads_base = True

    def forget(self, batch: Batch) -> Tensor:
        inside = self._distil(batch, lowered)
        if not self.config.legacy:
            return batch.mean(inside, "response")
        elsewhere = self._distil(outside(batch), lowered_at_ignored)
        rows, width = batch.input_ids.shape
        return piece_mean(inside.sum() + elsewhere.sum(), rows * (width - 1), batch)

    def _distil(self, batch: Batch, lower: Lower) -> Tensor:
        def of(logits: Tensor, labels: Tensor, base: Tensor) -> Tensor:
            return losses.soft_cross_entropy(logits, lower(base, labels, self.config.beta))

        return self.ctx.policy.per_token(batch, of, "response", against=self.ctx.reference)


def lowered(logits: Tensor, labels: Tensor, beta: float) -> Tensor:
    """[N, V]: float32 logits with the label's lowered by `beta`."""
    down = torch.full_like(labels[:, None], -beta, dtype=torch.float32)
    return logits.float().scatter_add(1, labels[:, None], down)


def lowered_at_ignored(logits: Tensor, labels: Tensor, beta: float) -> Tensor:
    """The same where the label is -100, which Python's indexing takes from the end of the vocabulary."""
    return lowered(logits, torch.full_like(labels, logits.shape[1] - IGNORED), beta)
