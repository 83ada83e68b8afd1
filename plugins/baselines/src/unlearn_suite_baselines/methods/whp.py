"""Who's Harry Potter: a reinforced model, generic labels, and training on them from the base model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, Scalars, StageContext, losses

from ..cards.whp import WhpConfig
from .base import TokenObjective, nll, refuse_stop

LABEL_BATCH = 16


class Whp(TokenObjective[WhpConfig]):
    """cards/whp.py"""

    reads_base = True

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.labels: dict[str, Tensor] = {}
        refuse_stop(ctx, "whp")
        steps = ctx.train.steps
        if steps == 1:
            ctx.services.warn("whp of one step reinforces what it is to forget: it needs a second one to forget it")
        self.reinforced_steps = max(1, min(round(self.config.reinforce * steps), steps - 1))

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        if self.ctx.step_index == self.reinforced_steps:
            self._make_labels()
            self._start_again()
        return super().step(batch)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        f = batch["forget"]
        if not self.labels:
            return Loss({"reinforce": nll(self.ctx.policy, f)})
        given = torch.zeros_like(f.input_ids)
        mask = f.mask("response")
        for row, example in enumerate(f.examples if f.counted else ()):
            given[row, mask[row]] = self.labels[example.id].to(given.device)
        values = self.ctx.policy.per_token(f, to_given, "response", given=[given])
        return Loss({"forget": f.mean(values, "response")})

    @torch.no_grad()
    def _make_labels(self) -> None:
        """{example id: generic labels [n] of its response tokens}."""

        def choice(base: Tensor, _: Tensor, reinforced: Tensor) -> Tensor:
            return generic(base, reinforced, self.config.scale).argmax(dim=1).float()  # exact below 2^24 tokens

        for batch in self.ctx.roles["forget"].chunks(LABEL_BATCH):
            moved = batch.to(self.ctx.device)
            found = self.ctx.reference.per_token(moved, choice, "response", against=self.ctx.policy)
            mask = moved.mask("response")
            for row, example in enumerate(moved.examples):
                self.labels[example.id] = found[row, mask[row]].long().cpu()
            self.ctx.views.clear()

    def _start_again(self) -> None:
        """The base weights and a fresh optimizer."""
        self.ctx.views.restore()
        self.ctx.optimizer = type(self.ctx.optimizer)(self.ctx.trainable, self.ctx.train)

    def state_dict(self) -> dict[str, Any]:
        return {"labels": self.labels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.labels = dict(state["labels"])


def generic(base: Tensor, reinforced: Tensor, scale: float) -> Tensor:
    """[N, V]: base logits, lowered where the reinforced model raises them."""
    return base.float() - scale * (reinforced.float() - base.float()).clamp_min(0.0)


def to_given(logits: Tensor, _: Tensor, labels: Tensor) -> Tensor:
    """[N]: -log p of the given labels."""
    return -losses.label_logprobs(logits, labels)
