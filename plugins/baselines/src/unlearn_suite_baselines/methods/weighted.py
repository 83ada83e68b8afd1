"""Weighted gradient ascent: WGA and SatImp."""

from __future__ import annotations

from torch import Tensor

from unlearn_suite import Batch

from ..cards.satimp import SatImpConfig
from ..cards.wga import WgaConfig
from .base import ForgetRetain


class Wga(ForgetRetain[WgaConfig]):
    """cards/wga.py"""

    def forget(self, batch: Batch) -> Tensor:
        log_p = self.ctx.policy.token_logprobs(batch, "response")
        return batch.mean(log_p.detach().exp().pow(self.config.beta) * log_p, "response")


class SatImp(ForgetRetain[SatImpConfig]):
    """cards/satimp.py"""

    def forget(self, batch: Batch) -> Tensor:
        log_p = self.ctx.policy.token_logprobs(batch, "response")
        p = log_p.detach().exp()
        weight = p.pow(self.config.beta1) * (1.0 - p).clamp_min(0.0).pow(self.config.beta2)
        return batch.mean(weight * log_p, "response")
