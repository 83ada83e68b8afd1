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


@torch.no_grad()
def drift(ctx: StageContext, batches: Sequence[Batch]) -> Drift:
    """Over all content tokens of the batches. Each batch is read to the model's end, twice."""
    totals = torch.zeros(3, dtype=torch.float64)
    count = 0
    for batch in batches:
        kl = ctx.reference.per_token(batch, _kl, against=ctx.policy)
        found = (kl, ctx.policy.token_logprobs(batch), ctx.reference.token_logprobs(batch))
        totals += torch.stack([t.double().sum().cpu() for t in found])
        count += int(batch.mask("content").sum())
        ctx.views.clear()
    kl_mean, now, start = (totals / max(count, 1)).tolist()
    return Drift(kl_mean, _exp(-now), _exp(start - now) - 1)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def _kl(start: Tensor, _: Tensor, now: Tensor) -> Tensor:
    return losses.kl(start, now)
