"""How far the model's predictions on some texts are from those it began with: KL and perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import losses
from ..batch import Batch
from ..context import StageContext


@dataclass(frozen=True)
class Drift:
    """`kl`: KL(start || now), nats per token; `ppl`: perplexity now; `ppl_rise`: its relative rise."""

    kl: float
    ppl: float
    ppl_rise: float


class Yardstick:
    """Fixed texts, and what the stage's first model made of them: it reads them once, at the first measurement."""

    def __init__(self, ctx: StageContext, batches: Sequence[Batch]) -> None:
        self._ctx = ctx
        self._batches = batches
        self._start: list[tuple[Tensor, Tensor]] = []
        """of each batch, the LM head's input [B, T, D] and the sum of its tokens' log-probs"""

    @torch.no_grad()
    def drift(self) -> Drift:
        """Over all content tokens. The model as it is now reads each batch to its end, once."""
        if not self._start:
            self._start = [self._read(batch) for batch in self._batches]
        totals = torch.zeros(3, dtype=torch.float64)
        for batch, (last_btd, start) in zip(self._batches, self._start, strict=True):
            totals += torch.stack([*self._compare(batch, last_btd), start])
        tokens = sum(int(batch.mask("content").sum()) for batch in self._batches)
        kl_mean, now_mean, start_mean = (totals / max(tokens, 1)).tolist()
        return Drift(kl_mean, _exp(-now_mean), _exp(start_mean - now_mean) - 1)

    def _compare(self, batch: Batch, last_btd: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over a batch's content tokens: KL(start || now), and log-probs now from the same logits."""
        now_sums = []

        def kl(start: Tensor, labels: Tensor, now: Tensor) -> Tensor:
            now_sums.append(_sum(losses.label_logprobs(now, labels)))
            return losses.kl(start, now)

        self._ctx.reference.assume(batch, {"last": last_btd})
        kl_sum = _sum(self._ctx.reference.per_token(batch, kl, against=self._ctx.policy))
        self._ctx.views.clear()
        return kl_sum, torch.stack(now_sums).sum()

    def _read(self, batch: Batch) -> tuple[Tensor, Tensor]:
        last_btd, logprobs = self._ctx.reference.last_hidden(batch), self._ctx.reference.token_logprobs(batch)
        self._ctx.views.clear()
        return last_btd, _sum(logprobs)


def _sum(values: Tensor) -> Tensor:
    """Float64, on the CPU."""
    return values.double().sum().cpu()


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
