"""The objective: J = L_F + a L_R + lambda_N L_N at block l*, and the meta-gradient of simulated relearning."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unlearn_suite import (
    Batch,
    Example,
    Loss,
    LossObjective,
    ModelShape,
    Requirements,
    Scalars,
    StageContext,
    losses,
)

from . import directions
from .config import CosineRmuConfig
from .losses import norm_guard, toward

DEPTH = 0.22
SETUP_BATCHES = 8
BITE_EVERY = 5


class CosineRmu(LossObjective[CosineRmuConfig]):
    """METHODS 4.1 and 4.2 (first order). Forget and retain means are over content tokens."""

    def requirements(self, shape: ModelShape) -> Requirements:
        block = self._block(shape)
        blocks = range(max(0, block - self.config.width + 1), block + 1)
        deep = self.config.meta == "relearn" and self.config.inner_loss == "ce"
        return Requirements(trainable=shape.select("mlp_out", blocks), reads=block, logits=deep)

    def _block(self, shape: ModelShape) -> int:
        block = self.config.block
        if block is None:
            block = min(round(DEPTH * shape.n_blocks), shape.n_blocks - 2)
        return shape.check_block(max(block, 0))

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.block = self._block(ctx.shape)
        self.topics = sorted({e.example.group for e in ctx.roles["forget"].encoded})
        h_retain = self._activations("retain", None)
        self.directions: dict[str, Tensor] = {}
        for topic in self.topics:
            u = directions.draw(
                self.config.direction,
                ctx.generator,
                self._activations("forget", topic),
                h_retain,
                list(self.directions.values()),
            )
            self.directions[topic] = u.to(ctx.device)
        if self.config.meta == "relearn":
            self._split_forget()

    def _activations(self, role: str, topic: str | None) -> Tensor:
        """Base activations [N, D] of content tokens of up to `SETUP_BATCHES` batches."""
        data = self.ctx.roles[role]
        if topic is not None:
            examples = [e.example for e in data.encoded if e.example.group == topic]
            data = self.ctx.encode(role, examples)
        rows = []
        for step in range(SETUP_BATCHES):
            batch = data.batch(step, self.ctx.train.batch).to(self.ctx.device)
            h = self.ctx.reference.hidden(batch, [self.block])[self.block]
            rows.append(h[batch.mask("content")].cpu())
        return torch.cat(rows)

    def _split_forget(self) -> None:
        """Disjoint halves of the forget set, by unit: the simulated attacker's text and the meta loss's text."""
        examples = [e.example for e in self.ctx.roles["forget"].encoded]
        halves: tuple[list[Example], list[Example]] = ([], [])
        for example in examples:
            digest = hashlib.sha256((example.unit or example.id).encode()).digest()
            halves[digest[0] % 2].append(example)
        if not all(halves):
            halves = (examples, examples)
            self.ctx.services.warn("cosine-rmu: too few forget units to split; the attacker trains on the meta text")
        self.ctx.set_role("meta-attack", halves[0])
        self.ctx.set_role("meta-forget", halves[1])

    def _targets(self, batch: Batch) -> Tensor:
        """[B, 1, D]: each example's topic direction."""
        return torch.stack([self.directions[e.group] for e in batch.examples])[:, None]

    def _forget(self, batch: Batch) -> Tensor:
        h = self.ctx.policy.hidden(batch, [self.block])[self.block]
        return batch.mean(toward(h, self._targets(batch), self.config.margin))

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        f, r, block = batch["forget"], batch["retain"], self.block
        h_f, h_r = (self.ctx.policy.hidden(b, [block])[block] for b in (f, r))
        ref_f, ref_r = (self.ctx.reference.hidden(b, [block])[block] for b in (f, r))
        with torch.no_grad():
            scalars = {
                "cos_forget": f.mean(losses.cosine(h_f, self._targets(f))),
                "rho_forget": f.mean(losses.norm_ratio(h_f, ref_f)),
                "rho_retain": r.mean(losses.norm_ratio(h_r, ref_r)),
            }
        return Loss(
            parts={
                "forget": self._forget(f),
                "retain": r.mean(losses.relative_error(h_r, ref_r)),
                "norm": f.mean(norm_guard(h_f, ref_f)),
            },
            weights={"retain": self.config.retain_weight, "norm": self.config.norm_guard},
            scalars=scalars,
        )

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        scalars = self.ctx.backward(self.loss, batch)
        weight = self._meta_weight()
        if weight > 0 and self.ctx.step_index % self.config.fork_every == 0:
            scalars |= self._add_meta_gradient(weight)
        return {**scalars, **self.ctx.update()}

    def _meta_weight(self) -> float:
        """gamma_s: 0 before `meta_start` (nothing to relearn yet), then a linear rise over as long again."""
        if self.config.meta == "none":
            return 0.0
        start = self.config.meta_start
        progress = self.ctx.step_index / max(self.ctx.train.steps, 1)
        rise = 1.0 if start == 0 else min(max((progress - start) / start, 0.0), 1.0)
        return self.config.meta_weight * rise

    def _add_meta_gradient(self, weight: float) -> Scalars:
        """g <- g + gamma_s clip(g_meta) with |g_meta| at most that of the plain forget gradient (MUDMAN)."""
        ctx, config, step = self.ctx, self.config, self.ctx.step_index
        x = ctx.draw("meta-forget", step)
        params = list(ctx.trainable.values())
        base_norm = float(ctx.global_norm(torch.autograd.grad(self._forget(x), params)))
        ctx.policy.clear()
        benign = config.inner_loss == "ce" and self._uniform() < config.benign_share
        source = "retain" if benign else "meta-attack"
        low, high = config.inner_lr
        rate = math.exp(math.log(low) + self._uniform() * (math.log(high) - math.log(low)))
        before = self._bite_loss(x) if self._measures_bite() else None
        after: list[float] = []

        def inner(k: int) -> Tensor:
            attack_batch = ctx.draw(source, step * config.inner_steps + k)
            return self._inner_loss(attack_batch)

        def outer() -> Tensor:
            if before is not None:
                after.append(self._bite_loss(x))
            return self._forget(x)

        found = ctx.adversary.attack(
            inner, outer, lr=rate, readouts=readout_weights(config.inner_steps), optimizer=config.inner_optimizer
        )
        ctx.policy.clear()
        meta_norm = float(ctx.global_norm(list(found.gradient.values())))
        factor = weight * min(1.0, base_norm / max(meta_norm, 1e-12))
        for name, parameter in ctx.trainable.items():
            update = (factor * found.gradient[name]).to(parameter.dtype)
            parameter.grad = update if parameter.grad is None else parameter.grad + update
        scalars = {
            "meta_forget": found.outer_losses[config.inner_steps],
            "meta_norm_ratio": meta_norm / max(base_norm, 1e-12),
            "inner_displacement": found.displacement,
        }
        if before is not None:
            scalars["bite"] = self._bite(before, after[-1], x)
        return scalars

    def _measures_bite(self) -> bool:
        return (self.ctx.step_index // self.config.fork_every) % BITE_EVERY == 0

    def _inner_loss(self, batch: Batch) -> Tensor:
        if self.config.inner_loss == "ce":
            return -batch.mean(self.ctx.policy.token_logprobs(batch, "response"), "response")
        h, ref = (v.hidden(batch, [self.block])[self.block] for v in (self.ctx.policy, self.ctx.reference))
        return batch.mean(losses.relative_error(h, ref))

    @torch.no_grad()
    def _bite_loss(self, batch: Batch) -> float:
        return float(self._inner_loss(batch))

    @torch.no_grad()
    def _bite(self, before: float, after: float, batch: Batch) -> float:
        """A = (L(phi) - L(psi_K)) / (L(phi) - L(base)): the share of the lost ability the attack won back."""
        base = 0.0
        if self.config.inner_loss == "ce":
            base = -float(batch.mean(self.ctx.reference.token_logprobs(batch, "response"), "response"))
        gap = before - base
        return (before - after) / gap if abs(gap) > 1e-6 else 0.0

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self.ctx.generator))


def readout_weights(k: int) -> dict[int, float]:
    """{inner step: weight}: half-way and last, weights ~ exp(0.5 (k - K)), sum 1."""
    steps = sorted({max(1, k // 2), k})
    raw = [math.exp(0.5 * (step - k)) for step in steps]
    return {step: w / sum(raw) for step, w in zip(steps, raw, strict=True)}
