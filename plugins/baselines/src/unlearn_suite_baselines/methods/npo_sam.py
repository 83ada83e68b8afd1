"""NPO with smoothness: gradients at perturbed weights, or averaged weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, Objective, PlanError, Requirements, Scalars, StageContext, losses
from unlearn_suite import ModelShape as Shape

from ..cards.npo_sam import NpoSamConfig
from .base import retain_loss
from .logratio import lengths, log_ratio
from .trained import chosen

Named = dict[str, Tensor]

EXACT = (torch.float32, torch.float64)
MOST = 0.9
"""share of the weights that noise must change to be noise"""


class NpoSam(Objective[NpoSamConfig]):
    """cards/npo_sam.py"""

    def requirements(self, shape: Shape) -> Requirements:
        return Requirements(chosen(shape, self.config), reads=-1, logits=True)

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        if not self._perturbs_exactly():
            raise PlanError(
                f"npo-sam with {self.config.smoothness} needs float32 weights: bfloat16 rounds its perturbations away",
                code="inner-precision",
                hint="set compute.precision to fp32 (with `lora` for a large model), or take smoothness: wa",
            )
        averages = self.config.smoothness == "wa"
        self.total: Named = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in ctx.trainable.items() if averages}
        self.averaged = 0

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        forget = {"forget": batch["forget"]}
        scalars, gradient = self._gradient(forget)
        scalars["loss"] *= self.config.gamma
        gradient = getattr(self, f"_{self.config.smoothness}")(forget, gradient)
        if self.config.alpha > 0:
            found = self.ctx.backward(self._retain, {"retain": batch["retain"]})
            scalars = {**found, "forget": scalars["forget"], "loss": scalars["loss"] + found["loss"]}
        for name, p in self.ctx.trainable.items():
            own = self.config.gamma * gradient[name]
            p.grad = own if p.grad is None else p.grad + own
        scalars |= self.ctx.update()
        return scalars | self._average()

    def _perturbs_exactly(self) -> bool:
        """Whether displaced weights are where they should be: noise (rs) may be rough, if it moves most weights."""
        c, weights = self.config, list(self.ctx.trainable.values())
        penalty_without_gradient = c.legacy and c.smoothness in ("gp", "cr")
        if c.smoothness == "wa" or penalty_without_gradient or all(p.dtype in EXACT for p in weights):
            return True
        if c.smoothness != "rs":
            return False
        # the squared norm of zeros and ones is their number, on any number of devices
        moved = sum(float(self.ctx.global_norm([(p.detach() + c.rho != p).float()])) ** 2 for p in weights)
        return moved > MOST * sum(p.numel() for p in weights)

    def _sam(self, forget: Mapping[str, Batch], g: Named) -> Named:
        with self._moved(g, self.config.rho / self._norm(g)):
            return self._gradient(forget)[1]

    def _rs(self, forget: Mapping[str, Batch], g: Named) -> Named:
        mean = {name: torch.zeros_like(x) for name, x in g.items()}
        for _ in range(self.config.draws):
            z = {name: self._noise_like(x) for name, x in g.items()}
            with self._moved(z, self.config.rho):
                for name, x in self._gradient(forget)[1].items():
                    mean[name] += x / self.config.draws
        return mean

    def _noise_like(self, x: Tensor) -> Tensor:
        drawn = torch.randn(x.shape, generator=self.ctx.generator)
        return self.ctx.placed(drawn.to(x.device, x.dtype), x)

    def _gp(self, forget: Mapping[str, Batch], g: Named) -> Named:
        """grad (L + rho |g|) = g + rho H g / |g|."""
        if self.config.legacy:
            return g
        rate, product = self.config.rho / self._norm(g), self._product(forget, g, g)
        return {name: x + rate * product[name] for name, x in g.items()}

    def _cr(self, forget: Mapping[str, Batch], g: Named) -> Named:
        """grad (L + rho |d|^2) = g + 2 rho (H' d - H d), d = g' - g, primes a small step along g away."""
        if self.config.legacy:
            return g
        with self._moved(g, self.config.difference / self._norm(g)):
            ahead = self._gradient(forget)[1]
            d = {name: ahead[name] - x for name, x in g.items()}
            there = self._product(forget, ahead, d)
        here = self._product(forget, g, d)
        return {name: x + 2 * self.config.rho * (there[name] - here[name]) for name, x in g.items()}

    def _product(self, forget: Mapping[str, Batch], g: Named, d: Named) -> Named:
        """The Hessian at these weights, whose gradient is `g`, times `d`: by a difference of gradients along d."""
        size = self.config.difference / self._norm(d)
        with self._moved(d, size):
            ahead = self._gradient(forget)[1]
        return {name: (ahead[name] - x) / size for name, x in g.items()}

    def _wa(self, forget: Mapping[str, Batch], g: Named) -> Named:
        return g

    def _forget(self, batch: Mapping[str, Batch]) -> Loss:
        f = batch["forget"]
        ratio = log_ratio(self.ctx, f)
        if self.config.per_token or self.config.legacy:
            ratio = ratio / lengths(f)
        return Loss({"forget": f.mean_examples(losses.preference(-ratio, self.config.beta))})

    def _retain(self, batch: Mapping[str, Batch]) -> Loss:
        return Loss({"retain": retain_loss(self.ctx, batch["retain"], self.config)}, {"retain": self.config.alpha})

    def _gradient(self, forget: Mapping[str, Batch]) -> tuple[Scalars, Named]:
        scalars = self.ctx.backward(self._forget, forget)
        found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self.ctx.trainable.items()}
        for p in self.ctx.trainable.values():
            p.grad = None
        return scalars, found

    def _norm(self, g: Named) -> float:
        return max(float(self.ctx.global_norm(list(g.values()))), 1e-12)

    @contextmanager
    def _moved(self, direction: Named, size: float) -> Iterator[None]:
        """Inside, the weights are displaced; they are put back bit for bit."""
        start = {name: p.detach().clone() for name, p in self.ctx.trainable.items()}
        try:
            with torch.no_grad():
                for name, p in self.ctx.trainable.items():
                    p.add_(direction[name], alpha=size)
            yield
        finally:
            with torch.no_grad():
                for name, p in self.ctx.trainable.items():
                    p.copy_(start[name])

    @torch.no_grad()
    def _average(self) -> Scalars:
        """Add the weights to the average when they are due; the last step ends with the average in their place."""
        done, c, steps = self.ctx.step_index + 1, self.config, self.ctx.train.steps
        first = round(c.average_from * steps)
        if c.smoothness != "wa" or done < first or ((done - first) % c.average_every and done < steps):
            return {}
        for name, p in self.ctx.trainable.items():
            self.total[name] += p
        self.averaged += 1
        if done == steps:
            for name, p in self.ctx.trainable.items():
                p.copy_(self.total[name] / self.averaged)
        return {"averaged": float(self.averaged)}

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "averaged": self.averaged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.total = {name: t.to(self.ctx.device) for name, t in state["total"].items()}
        self.averaged = int(state["averaged"])
