"""MUDMAN: plain SGD on three gradients, one of them an adversary's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, ModelShape, Objective, Requirements, Scalars, StageContext, losses

from ..cards.mudman import MudmanConfig
from .base import nll
from .trained import chosen

Named = dict[str, Tensor]


class Mudman(Objective[MudmanConfig]):
    """cards/mudman.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        return Requirements(chosen(shape, self.config), reads=-1, logits=True, reference=False)

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.average: Named = {name: torch.zeros_like(p) for name, p in ctx.trainable.items()}
        self.adversary: Named = {}
        _, gradient = self._gradient(self._unlearn, {"forget": ctx.draw("forget", 0)})
        self.first_norm = float(ctx.global_norm(list(gradient.values())))

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        ctx, c = self.ctx, self.config
        if ctx.step_index % c.fork_every == 0 or not self.adversary:
            self.adversary = {name: p.detach().clone() for name, p in ctx.trainable.items()}
        retain, gradient = self._gradient(self._retain, {"retain": batch["retain"]})
        for name, g in gradient.items():
            self.average[name].mul_(c.momentum).add_(g, alpha=1 - c.momentum)
        self._move(self.average, c.retaining_rate)
        forget = {"forget": batch["forget"]}
        with self._as_adversary():
            relearn, gradient = self._gradient(self._relearn, forget)
            self._move(gradient, c.adversary_rate)
            unlearn, gradient = self._gradient(self._unlearn, forget)
        norm = float(ctx.global_norm(list(gradient.values())))
        agree = {name: self.average[name].sign() == g.sign() for name, g in gradient.items()}
        masked = {name: g * agree[name] for name, g in gradient.items()}
        self._move(masked, c.unlearning_rate * self.first_norm / max(norm, 1e-12))
        # the squared norm of zeros and ones is their number, on any number of devices
        kept = float(ctx.global_norm([a.double() for a in agree.values()])) ** 2
        kept /= sum(a.numel() for a in agree.values())
        return {"loss": unlearn, "retain": retain, "relearn": relearn, "grad_norm": norm, "agree": kept}

    def _gradient(self, loss: Callable[[Mapping[str, Batch]], Loss], batch: Mapping[str, Batch]) -> tuple[float, Named]:
        """(value, gradient by name); `.grad` is empty afterwards."""
        value = self.ctx.backward(loss, batch)["loss"]
        found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self.ctx.trainable.items()}
        for p in self.ctx.trainable.values():
            p.grad = None
        return value, found

    @torch.no_grad()
    def _move(self, direction: Named, rate: float) -> None:
        for name, p in self.ctx.trainable.items():
            p.sub_(direction[name], alpha=rate)

    @contextmanager
    def _as_adversary(self) -> Iterator[None]:
        """Inside, the weights are the adversary's; changes to them are its own."""
        own = {name: p.detach().clone() for name, p in self.ctx.trainable.items()}
        with torch.no_grad():
            for name, p in self.ctx.trainable.items():
                p.copy_(self.adversary[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self.ctx.trainable.items():
                    self.adversary[name] = p.detach().clone()
                    p.copy_(own[name])

    def _retain(self, batch: Mapping[str, Batch]) -> Loss:
        return Loss({"retain": nll(self.ctx.policy, batch["retain"])})

    def _relearn(self, batch: Mapping[str, Batch]) -> Loss:
        return Loss({"relearn": nll(self.ctx.policy, batch["forget"])})

    def _unlearn(self, batch: Mapping[str, Batch]) -> Loss:
        f = batch["forget"]
        values = self.ctx.policy.per_token(f, UNLEARN[self.config.unlearn], "response")
        return Loss({"unlearn": f.mean(values, "response")})

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "adversary": self.adversary}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = self.ctx.device
        self.average = {name: t.to(device) for name, t in state["average"].items()}
        self.adversary = {name: t.to(device) for name, t in state["adversary"].items()}


def correct_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """[N]: relu(true logit - mean logit)."""
    z = logits.float()
    return (z.gather(1, labels[:, None])[:, 0] - z.mean(1)).clamp_min(0.0)


UNLEARN: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "neg_entropy": lambda z, _: -losses.entropy(z),
    "neg_cross_entropy": losses.label_logprobs,
    "correct_logit": correct_logit,
}
