"""Gradient ascent, alone and with a retain loss."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from unlearn_suite import Batch, Loss

from ..cards.common import Retains, Trains
from .base import ForgetRetain, TokenObjective, nll


class GradientAscent(TokenObjective[Trains]):
    """cards/gradient_ascent.py"""

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        return Loss({"forget": -nll(self.ctx.policy, batch["forget"])})


class GradDiff(ForgetRetain[Retains]):
    """cards/graddiff.py"""

    def forget(self, batch: Batch) -> Tensor:
        return -nll(self.ctx.policy, batch)
