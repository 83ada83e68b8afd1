"""PDU: a primal step by the engine, a dual step of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, Scalars, StageContext

from ..cards.pdu import PduConfig
from .base import ForgetRetain, nll, retain_loss
from .everywhere import piece_mean, unshifted

SETUP_BATCHES = 4


class Pdu(ForgetRetain[PduConfig]):
    """cards/pdu.py"""

    def compares(self) -> bool:
        """`kl` reads the base model whatever lambda begins with."""
        return self.config.retain == "kl"

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.dual = self.config.alpha
        self.eps = self.config.eps if self.config.eps is not None else self._base_loss() + self.config.slack

    @torch.no_grad()
    def _base_loss(self) -> float:
        """The base model's mean retain loss (0 for `kl`): nothing is trained yet, so the policy is the base model."""
        if self.config.retain == "kl":
            return 0.0
        batches = [self.ctx.draw("retain", step) for step in range(SETUP_BATCHES)]
        return sum(self.ctx.total(nll(self.ctx.policy, batch)) for batch in batches) / len(batches)

    def forget(self, batch: Batch) -> Tensor:
        if not self.config.legacy:
            return batch.mean(self.ctx.policy.per_token(batch, peak, "response"), "response")
        moved = unshifted(batch)
        found = self.ctx.policy.per_token(moved, peak, "response")
        return piece_mean(found.sum(), int(moved.chosen.sum()), batch)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        return Loss(
            {"forget": self.forget(batch["forget"]), "retain": retain_loss(self.ctx, batch["retain"], self.config)},
            {"forget": self.config.gamma, "retain": self.dual},
        )

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        scalars = super().step(batch)
        if self.ctx.step_index >= self.config.warmup * self.ctx.train.steps:
            self.dual = max(0.0, self.dual + self.config.eta * (scalars["retain"] - self.eps))
        return {**scalars, "dual": self.dual}

    def state_dict(self) -> dict[str, Any]:
        return {"dual": self.dual}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.dual = float(state["dual"])


def peak(logits: Tensor, _: Tensor) -> Tensor:
    """[N]: (max_v z_v - mean_v z_v)^2."""
    z = logits.float()
    return (z.amax(1) - z.mean(1)).square()
