"""CE-U."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from unlearn_suite import Batch, Loss, StageContext, losses

from ..cards.ceu import CeuConfig
from .base import TokenObjective


class Ceu(TokenObjective[CeuConfig]):
    """cards/ceu.py"""

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        role, skip = ctx.roles["forget"], self.config.ignore_first
        # Counted from the first token that is predicted at all: the text's first one where there is no prompt.
        role.encoded = [replace(e, response_start=max(e.response_start, 1) + skip) for e in role.encoded]

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        f = batch["forget"]
        return Loss({"forget": f.mean(self.ctx.policy.per_token(f, without_label, "response"), "response")})


def without_label(logits: Tensor, labels: Tensor) -> Tensor:
    """[N]: CE(softmax(sg(z) with z_y = -inf), softmax(z))."""
    target = logits.detach().float().scatter(1, labels[:, None], float("-inf"))
    return losses.soft_cross_entropy(logits, target)
