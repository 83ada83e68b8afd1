"""The meta-gradients: what the forget loss says after a simulated attack, or after a step on other facts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from unlearn_suite import Batch, Scalars, StageContext, TrainingError

from .bite import Bite
from .config import CosineRmuConfig
from .draws import inner_rate, uniform
from .terms import Terms, next_token_loss


class MetaGradient:
    """Adds gamma_s clip(g_meta) to the gradients of the trained tensors, |g_meta| at most that of the plain L_F.

    The clipping is MUDMAN's lesson (arXiv:2506.12484). Attack and meta loss read disjoint halves of the forget set.
    """

    def __init__(self, ctx: StageContext, config: CosineRmuConfig, terms: Terms) -> None:
        self.ctx, self.config, self.terms = ctx, config, terms
        self.bite = Bite(ctx, config, terms)
        if config.kinds - {"weight"}:
            ctx.split_role("forget", "meta-attack", "meta-forget")
            if config.attack_texts == "apart":
                ctx.set_role("forget", [one.example for one in ctx.roles["meta-forget"].encoded])

    def add(self, batch: Mapping[str, Batch], retain_weight: float) -> Scalars:
        """The meta-gradients of this step, if it has any; what they found. `retain_weight`: a."""
        weight, step, scalars = self.weight(), self.ctx.step_index, Scalars()
        if weight == 0.0 or step % self.config.fork_every:
            return scalars
        x = self.ctx.draw("meta-forget", step)
        plain = torch.autograd.grad(self.terms.forget(x), list(self.ctx.trainable.values()))
        base_norm = float(self.ctx.global_norm(plain))
        self.ctx.policy.clear()
        if self.config.attacks:
            scalars |= self._attack(x, base_norm, weight)
        if self.config.generalises:
            scalars |= self._generalise(x, batch["retain"], base_norm, weight, retain_weight)
        return scalars

    def weight(self) -> float:
        """gamma_s: 0 before `meta_start` (nothing to relearn yet), then a linear rise over as long again."""
        if not (self.config.attacks or self.config.generalises):
            return 0.0
        start = self.config.meta_start
        progress = self.ctx.step_index / max(self.ctx.train.steps, 1)
        rise = 1.0 if start == 0 else min(max((progress - start) / start, 0.0), 1.0)
        return self.config.meta_weight * rise

    def _attack(self, x: Batch, base_norm: float, weight: float) -> Scalars:
        """The forget loss on `x` after K steps of relearning or of benign fine-tuning."""
        ctx, config, step = self.ctx, self.config, self.ctx.step_index
        benign = self._is_benign()
        source = "retain" if benign else "meta-attack"
        rate = inner_rate(ctx, config)
        reading = self.bite.reading(x)

        def inner(k: int) -> Tensor:
            text = ctx.draw(source, step * config.inner_steps + k)
            if benign or config.inner_loss == "ce":
                return next_token_loss(ctx.policy, text)
            return self.terms.relearned(text)

        def outer() -> Tensor:
            reading.after()
            return self.terms.forget(x)

        assert config.order != "reptile", "the options allow it with generalise only"
        found = ctx.adversary.attack(
            inner,
            outer,
            lr=rate,
            readouts=readout_weights(config.inner_steps),
            optimizer=config.inner_optimizer,
            tensors=config.inner_tensors,
            rank=config.inner_rank,
            order=config.order,
        )
        ratio = self._add(found.gradient, base_norm, weight)
        scalars = {
            "meta_forget": found.outer_losses[config.inner_steps],
            "meta_norm_ratio": ratio,
            "inner_displacement": found.displacement,
        }
        bite = reading.value()
        if bite is not None:
            scalars["bite_benign" if benign else "bite"] = bite
        self.bite.judge(ratio, None if benign else bite, found.outer_losses[config.inner_steps])
        return scalars

    def _generalise(self, x: Batch, retain: Batch, base_norm: float, weight: float, a: float) -> Scalars:
        """L_F(x) + a L_R after one unlearning step on the other half (MLDG, arXiv:1710.03463), or Reptile's walk."""
        ctx, config, step = self.ctx, self.config, self.ctx.step_index
        other = ctx.draw("retain", ctx.train.steps + step)

        def outer() -> Tensor:
            return self.terms.forget(x) + a * self.terms.retain(other)

        if config.order == "reptile":
            return self._reptile(outer, base_norm, weight)
        text = ctx.draw("meta-attack", step)

        def inner(_: int) -> Tensor:
            return self.terms.forget(text) + a * self.terms.retain(retain)

        rate = inner_rate(ctx, config)
        found = ctx.adversary.attack(
            inner, outer, lr=rate, readouts={1: 1.0}, optimizer=config.inner_optimizer, order=config.order
        )
        ratio = self._add(found.gradient, base_norm, weight)
        self.bite.judge(ratio)
        return {"generalise_loss": found.outer_losses[1], "generalise_norm_ratio": ratio}

    def _reptile(self, outer: Callable[[], Tensor], base_norm: float, weight: float) -> Scalars:
        """g = phi - psi_K, K unlearning steps on L_F of the other half (Reptile, arXiv:1803.02999).

        A descent step along g goes towards psi_K. `outer` is only told. A length of weights over one of gradients
        says nothing of an explosion, so nobody judges the ratio.
        """
        ctx, config, k_last = self.ctx, self.config, self.config.inner_steps

        def inner(k: int) -> Tensor:
            return self.terms.forget(ctx.draw("meta-attack", ctx.step_index * k_last + k))

        rate = inner_rate(ctx, config)
        with ctx.adversary.walk(inner, steps=k_last, lr=rate, optimizer=config.inner_optimizer) as walk:
            for _ in walk:
                pass
            with torch.no_grad():
                after = ctx.total(outer())
            gradient, moved = walk.back(), walk.displacement
        ratio = self._add(gradient, base_norm, weight)
        return {"generalise_loss": after, "generalise_norm_ratio": ratio, "inner_displacement": moved}

    def _add(self, gradient: Mapping[str, Tensor], base_norm: float, weight: float) -> float:
        """Add the clipped gradient; returns its norm over `base_norm` before the clipping. Raises `TrainingError`."""
        self.ctx.policy.clear()
        norm = float(self.ctx.global_norm(list(gradient.values())))
        if not math.isfinite(norm):
            raise TrainingError(
                f"the meta-gradient is not finite at step {self.ctx.step_index}: the simulated attack explodes",
                code="meta-non-finite",
                hint="lower `inner_lr` or `inner_steps`",
            )
        factor = weight * min(1.0, base_norm / max(norm, 1e-12))
        for name, parameter in self.ctx.trainable.items():
            update = (factor * gradient[name]).to(parameter.dtype)
            parameter.grad = update if parameter.grad is None else parameter.grad + update
        return norm / max(base_norm, 1e-12)

    def _is_benign(self) -> bool:
        kinds = self.config.kinds
        if "relearn" not in kinds:
            return True
        mixes = self.config.inner_loss == "ce" or "benign" in kinds
        return mixes and uniform(self.ctx) < self.config.benign_share

    def state_dict(self) -> dict[str, Any]:
        return self.bite.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.bite.load_state_dict(state)


def readout_weights(k: int) -> dict[int, float]:
    """{inner step: weight}: half-way and last, weights ~ exp(0.5 (k - K)), sum 1."""
    steps = sorted({max(1, k // 2), k})
    raw = [math.exp(0.5 * (step - k)) for step in steps]
    return {step: w / sum(raw) for step, w in zip(steps, raw, strict=True)}
