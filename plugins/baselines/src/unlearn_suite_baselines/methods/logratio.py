"""Log-likelihoods of whole answers, and their ratios to the base model's."""

from __future__ import annotations

import torch
from torch import Tensor

from unlearn_suite import Batch, StageContext, View


def logprob(view: View, batch: Batch) -> Tensor:
    """[B]: log p(y | x), nats, summed over response tokens."""
    return batch.sum_per_example(view.token_logprobs(batch, "response"))


def log_ratio(ctx: StageContext, batch: Batch) -> Tensor:
    """[B]: log p(y | x) - log p_base(y | x)."""
    with torch.no_grad():
        base = logprob(ctx.reference, batch)
    return logprob(ctx.policy, batch) - base


def lengths(batch: Batch) -> Tensor:
    """[B]: response tokens, at least 1."""
    return batch.mask("response").sum(1).clamp_min(1)
