"""JensUn."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, StageContext, losses

from ..cards.jensun import JensUnConfig
from .base import TokenObjective
from .everywhere import everywhere, piece_mean
from .logratio import lengths
from .pairs import Pairs, against, pick

SMALLEST = 1e-9
"""the public code's least probability"""


class JensUn(TokenObjective[JensUnConfig]):
    """cards/jensun.py. Refusals are averaged per example."""

    reads_base = True

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        c = self.config
        if c.legacy:
            ids = {text: ctx.tokenizer(text, add_special_tokens=False)["input_ids"] for text in c.refusals}
            self.wanted = {e.example.id: ids[pick(e.example.id, c.refusals)] for e in ctx.roles["forget"].encoded}
        else:
            self.pairs = Pairs(ctx, lambda e: [against(e, c.prompt_share, pick(e.id, c.refusals))])

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        forget, held = self._everywhere(batch) if self.config.legacy else self._divergences(batch)
        return Loss({"forget": forget, "retain": held}, {"forget": self.config.gamma, "retain": self.config.alpha})

    def _divergences(self, batch: Mapping[str, Batch]) -> tuple[Tensor, Tensor]:
        f, r, ctx = batch["forget"], batch["retain"], self.ctx
        refusal = self.pairs.partner(f)
        divergence = to_one_hot(ctx.policy.token_logprobs(refusal, "response"))
        per_example = refusal.sum_per_example(divergence) / lengths(refusal)
        held = r.mean(ctx.policy.per_token(r, between, "response", against=ctx.reference), "response")
        return f.mean_examples(per_example), held

    def _everywhere(self, batch: Mapping[str, Batch]) -> tuple[Tensor, Tensor]:
        """As public: forget texts as they are, prompts and padding too."""
        f, r, ctx = batch["forget"], batch["retain"], self.ctx
        found = ctx.policy.per_token(everywhere(f), to_tokens, given=[self._wanted(f)])
        held = ctx.policy.per_token(everywhere(r), clamped, against=ctx.reference)
        means = [piece_mean(x.sum(), b.input_ids.numel(), b) for x, b in ((found, f), (held, r))]
        return means[0], means[1]

    def _wanted(self, f: Batch) -> Tensor:
        """[B, T + 1, k]: the target tokens of each row, the last one repeated where another row has more."""
        rows, width = f.input_ids.shape
        most = max(map(len, self.wanted.values()))
        ids = torch.zeros(rows, most, dtype=torch.long, device=f.input_ids.device)
        for row, example in enumerate(f.examples):
            own = self.wanted[example.id]
            ids[row] = torch.tensor(own + own[-1:] * (most - len(own)))
        return ids[:, None].expand(rows, width + 1, most)


def between(policy: Tensor, _: Tensor, base: Tensor) -> Tensor:
    return losses.jensen_shannon(policy, base)


def to_one_hot(log_p: Tensor) -> Tensor:
    """[...]: Jensen-Shannon divergence between a distribution and the one-hot one at a token of log-prob `log_p`."""
    p = log_p.exp()
    log_m = torch.log1p(p) - math.log(2.0)  # the mixture's mass at the token, (1 + p) / 2
    return 0.5 * (-log_m + p * (log_p - log_m) + (1.0 - p) * math.log(2.0))


def to_tokens(logits: Tensor, _: Tensor, ids: Tensor) -> Tensor:
    """[N]: the same sum of two divergences with mass 1 at each of the tokens [N, k], which no distribution has."""
    p = logits.float().softmax(dim=1)
    return halves(p, torch.zeros_like(p).scatter(1, ids, 1.0))


def clamped(policy: Tensor, _: Tensor, base: Tensor) -> Tensor:
    return halves(policy.float().softmax(dim=1), base.float().softmax(dim=1))


def halves(p: Tensor, q: Tensor) -> Tensor:
    """[N]: (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2, nothing below `SMALLEST`."""
    m = ((p + q) / 2).clamp_min(SMALLEST).log()
    p, q = p.clamp_min(SMALLEST), q.clamp_min(SMALLEST)
    return (p * (p.log() - m) + q * (q.log() - m)).sum(1) / 2
