"""RepSelect: the gradient is made once, filtered, and applied until the budget is spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unlearn_suite import Batch, ModelShape, Objective, PlanError, Requirements, Scalars, StageContext

from ..cards.repselect import RepSelectConfig
from . import spy
from .base import kl, nll
from .trained import chosen, step_by


class RepSelect(Objective[RepSelectConfig]):
    """cards/repselect.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        names = chosen(shape, self.config)
        vectors = [name for name in names if len(shape.tensors[name]) != 2]
        if vectors:
            raise PlanError(
                f"repselect works on matrices, and {vectors[0]} is not one",
                code="not-a-matrix",
                hint="choose `tensors: mlp` or `linear`",
            )
        return Requirements(names, reads=-1, logits=True)

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.spent = False
        weights = [p.detach() for p in ctx.trainable.values()]
        found = {name: filtered(g, self.config.components) for name, g in self._forget_gradient().items()}
        size = (
            self.config.rate
            * float(ctx.global_norm(weights))
            / max(float(ctx.global_norm(list(found.values()))), 1e-12)
        )
        finest = ctx.optimizer.finest()
        self.update = {name: (size * g).to(finest[name].dtype) for name, g in found.items()}

    def _forget_gradient(self) -> dict[str, Tensor]:
        """grad -NLL of forget text at the weights of a model that has just relearned it."""
        ctx, c = self.ctx, self.config
        (x,) = ctx.encode("repselect", spy.some(ctx, "forget", c.texts)).chunks(c.texts)
        x = x.to(ctx.device)
        found = ctx.adversary.attack(
            lambda k: nll(ctx.policy, ctx.draw("forget", k)),
            lambda: -nll(ctx.policy, x),
            lr=c.inner_lr,
            readouts={c.inner_steps: 1.0},
            optimizer="sgd",
            tensors=c.adversary,
        )
        ctx.views.clear()
        return found.gradient

    @torch.no_grad()
    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        r = batch["retain"]
        if self.spent:
            return {"loss": self._disruption(r), "spent": 1.0}
        finest = self.ctx.optimizer.finest()
        before = {name: master.detach().clone() for name, master in finest.items()}
        step_by(self.ctx, self.update, 1.0)
        disruption = self._disruption(r)
        if disruption > self.config.budget:
            self.spent = True
            for name, p in self.ctx.trainable.items():
                finest[name].copy_(before[name])
                p.copy_(finest[name])
        return {"loss": disruption, "spent": float(self.spent)}

    def _disruption(self, r: Batch) -> float:
        """Mean KL(base || model) over retain tokens."""
        self.ctx.policy.clear()
        return self.ctx.total(r.mean(self.ctx.reference.per_token(r, kl, against=self.ctx.policy)))

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self.spent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.spent = bool(state["spent"])


def filtered(g: Tensor, share: float) -> Tensor:
    """[out, in]: g with its top `share` singular components divided by s_k / s_min on each side, i.e. by its square."""
    u, s, vh = torch.linalg.svd(g.float(), full_matrices=False)
    count = round(share * len(s))
    if count:
        scale = torch.ones_like(s)
        scale[:count] = (s[count - 1] / s[:count].clamp_min(1e-30)).square()
        s = s * scale
    return (u * s) @ vh
