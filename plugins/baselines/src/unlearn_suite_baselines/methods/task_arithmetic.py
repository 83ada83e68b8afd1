"""Task arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from unlearn_suite import Batch, Loss, Scalars, StageContext

from ..cards.task_arithmetic import TaskArithmeticConfig
from .base import TokenObjective, nll, refuse_stop


class TaskArithmetic(TokenObjective[TaskArithmeticConfig]):
    """cards/task_arithmetic.py"""

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        refuse_stop(ctx, "task-arithmetic")

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        return Loss({"fit": nll(self.ctx.policy, batch["forget"])})

    @torch.no_grad()
    def finish(self) -> Scalars:
        original = self.ctx.views.original
        for name, p in self.ctx.trainable.items():
            if ".lora_A." in name:  # the change is B A: turning B alone turns it
                continue
            p.copy_(original[name] - self.config.scale * (p - original[name]))
        return {}
