"""NPO and SimNPO."""

from __future__ import annotations

from torch import Tensor

from unlearn_suite import Batch, losses

from ..cards.npo import NpoConfig
from ..cards.simnpo import SimNpoConfig
from .base import ForgetRetain
from .logratio import lengths, log_ratio, logprob


class Npo(ForgetRetain[NpoConfig]):
    """cards/npo.py"""

    reads_base = True

    def forget(self, batch: Batch) -> Tensor:
        ratio = log_ratio(self.ctx, batch)
        if self.config.per_token:
            ratio = ratio / lengths(batch)
        return batch.mean_examples(losses.preference(-ratio, self.config.beta))


class SimNpo(ForgetRetain[SimNpoConfig]):
    """cards/simnpo.py"""

    def forget(self, batch: Batch) -> Tensor:
        loss_b = -logprob(self.ctx.policy, batch) / lengths(batch)
        return batch.mean_examples(losses.preference(loss_b - self.config.delta, self.config.beta))
