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
            ctx.require_whole_batch("flat with `legacy` averages over the answers of a batch", gathers=True)
        self.pairs = Pairs(ctx, lambda e: [against(e, c.prompt_share, pick(e.id, c.refusals))])

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        f = batch["forget"]
        wanted, unwanted = self._probability(f, self.pairs.partner(f)), self._probability(f, f)
        return Loss({"forget": f.mean_examples(DIVERGENCE[self.config.divergence](wanted, unwanted))})

    def _probability(self, f: Batch, answers: Batch) -> Tensor:
        """[B]: mean probability of the tokens of the answers to `f`; `legacy`: the mean over all positions of all rows,
        B times."""
        p = self.ctx.policy.token_logprobs(answers, "response").exp()
        if not self.config.legacy:
            return answers.sum_per_example(p) / lengths(answers)
        everywhere = self.ctx.rows(f, p.float().masked_fill(~answers.mask("response"), 0.0))
        return everywhere[:, 1:].mean().expand(len(p))


DIVERGENCE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": lambda e, f: -e + torch.exp(f - 1.0),
    "tv": lambda e, f: (torch.tanh(f) - torch.tanh(e)) / 2,
    "js": lambda e, f: softplus(-e) + f + softplus(-f) - 2 * math.log(2.0),
    "pearson": lambda e, f: -e + f.square() / 4 + f,
}
"""[B] losses of the wanted and the unwanted answer's probability"""
