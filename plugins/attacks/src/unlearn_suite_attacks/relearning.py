"""Relearning: supervised fine-tuning by an attacker, scored on its way.

    psi_0 = theta (unlearned);  psi_{k+1} = step(psi_k, grad of - mean_{t in y} log p_psi(y_t | x, y_<t))

over the answer tokens of a batch of the attacker's texts. The model is scored at psi_k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from unlearn_suite import Attack, AttackContext, AttackPoint

from .relearn import RelearnConfig

if TYPE_CHECKING:
    from torch import Tensor


class Relearn(Attack[RelearnConfig]):
    """relearn.py"""

    def run(self, ctx: AttackContext) -> Iterator[AttackPoint]:
        config = self.config
        loss = self._loss(ctx)
        for lr in config.lr:
            with ctx.adversary.walk(
                loss,
                steps=config.readings[-1],
                lr=lr,
                optimizer=config.optimizer,
                tensors=config.tensors,
                rank=config.rank,
            ) as walk:
                for step in walk:
                    if step in config.readings:
                        yield AttackPoint(f"lr {lr:g}", step)

    def _loss(self, ctx: AttackContext) -> Callable[[int], Tensor]:
        data = ctx.encode(self.config.role, self.config.length)

        def loss(step: int) -> Tensor:
            batch = data.batch(step, self.config.batch).to(ctx.model.device)
            return -batch.mean(ctx.policy.token_logprobs(batch, "response"), "response")

        return loss
