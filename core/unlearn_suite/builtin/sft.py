"""Supervised fine-tuning.

    L = - mean_{t in y} log p(y_t | x, y_<t)

over all answer tokens of a batch (of plain text: all tokens but the first).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..engine.batch import Batch
from ..engine.objective import Loss, LossObjective, Requirements
from ..engine.shape import ModelShape
from .finetuning import SftConfig


class Sft(LossObjective[SftConfig]):
    """finetuning.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        kind = self.config.tensors
        names = tuple(shape.tensors) if kind == "all" else shape.match(kind)
        return Requirements(names, reads=-1, logits=True, reference=False)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        data = batch[self.config.role]
        return Loss({"nll": -data.mean(self.ctx.policy.token_logprobs(data, "response"), "response")})
