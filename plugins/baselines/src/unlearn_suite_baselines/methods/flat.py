"""FLAT."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import softplus

from unlearn_suite import Batch, Loss, StageContext

from ..cards.flat import FlatConfig
from .base import TokenObjective
from .logratio import lengths
from .pairs import Pairs, against, pick


class Flat(TokenObjective[FlatConfig]):
    """cards/flat.py"""

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        c = self.config
        if c.legacy:
            ctx.require_whole_batch("flat with `legacy` averages over the answers of a batch")
        self.pairs = Pairs(ctx, lambda e: [against(e, c.prompt_share, pick(e.id, c.refusals))])

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        f = batch["forget"]
        wanted, unwanted = self._probability(self.pairs.partner(f)), self._probability(f)
        return Loss({"forget": f.mean_examples(DIVERGENCE[self.config.divergence](wanted, unwanted))})

    def _probability(self, batch: Batch) -> Tensor:
        """[B]: mean probability of the answer's tokens; `legacy`: the mean over all positions of all rows, B times."""
        p = batch.sum_per_example(self.ctx.policy.token_logprobs(batch, "response").exp())
        if not self.config.legacy:
            return p / lengths(batch)
        return (p.mean() / (batch.input_ids.shape[1] - 1)).expand_as(p)


DIVERGENCE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": lambda e, f: -e + torch.exp(f - 1.0),
    "tv": lambda e, f: (torch.tanh(f) - torch.tanh(e)) / 2,
    "js": lambda e, f: softplus(-e) + f + softplus(-f) - 2 * math.log(2.0),
    "pearson": lambda e, f: -e + f.square() / 4 + f,
}
"""[B] losses of the wanted and the unwanted answer's probability"""
