"""JensUn."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, StageContext, losses

from ..cards.jensun import JensUnConfig
from .base import TokenObjective
from .logratio import lengths
from .pairs import Pairs, against, pick


class JensUn(TokenObjective[JensUnConfig]):
    """cards/jensun.py. Refusals are averaged per example."""

    reads_base = True

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        c = self.config
        self.pairs = Pairs(ctx, lambda e: [against(e, c.prompt_share, pick(e.id, c.refusals))])

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        f, r, ctx = batch["forget"], batch["retain"], self.ctx
        refusal = self.pairs.partner(f)
        divergence = to_one_hot(ctx.policy.token_logprobs(refusal, "response"))
        per_example = refusal.sum_per_example(divergence) / lengths(refusal)
        held = r.mean(ctx.policy.per_token(r, between, "response", against=ctx.reference), "response")
        return Loss(
            {"forget": f.mean_examples(per_example), "retain": held},
            {"forget": self.config.gamma, "retain": self.config.alpha},
        )


def between(policy: Tensor, _: Tensor, base: Tensor) -> Tensor:
    return losses.jensen_shannon(policy, base)


def to_one_hot(log_p: Tensor) -> Tensor:
    """[...]: Jensen-Shannon divergence between a distribution and the one-hot one at a token of log-prob `log_p`."""
    p = log_p.exp()
    log_m = torch.log1p(p) - math.log(2.0)  # the mixture's mass at the token, (1 + p) / 2
    return 0.5 * (-log_m + p * (log_p - log_m) + (1.0 - p) * math.log(2.0))
