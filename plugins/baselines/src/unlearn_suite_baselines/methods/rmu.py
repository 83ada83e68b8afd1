"""RMU and adaptive RMU: activations of one block, nothing above it is run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, LossObjective, ModelShape, Requirements, Scalars, StageContext, losses

from ..cards.adaptive_rmu import AdaptiveRmuConfig
from ..cards.rmu import RmuConfig, SteeringConfig
from .everywhere import piece_mean
from .logratio import lengths

S = TypeVar("S", bound=SteeringConfig)
DEPTH = 0.22


class Steering(LossObjective[S]):
    """Forget activations [B, T, D] of one block towards targets [B, 1, D], retain activations where they were."""

    def requirements(self, shape: ModelShape) -> Requirements:
        block = self.steered_block(shape)
        return Requirements(shape.select("mlp_out", range(max(0, block - self.config.width + 1), block + 1)), block)

    def steered_block(self, shape: ModelShape) -> int:
        block = self.config.block
        if block is None:
            block = max(min(round(DEPTH * shape.n_blocks), shape.n_blocks - 2), 0)
        return shape.check_block(block)

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.block = self.steered_block(ctx.shape)
        topics = sorted({e.example.group for e in ctx.roles["forget"].encoded})
        self.targets = {topic: self._unit().to(ctx.device) * self.target_norm(topic) for topic in topics}

    def _unit(self) -> Tensor:
        draw = torch.rand if self.config.direction == "rand_pos" else torch.randn
        u = draw(self.ctx.shape.hidden_size, generator=self.ctx.generator)
        return u / u.norm()

    def target_norm(self, topic: str) -> float:
        raise NotImplementedError

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        self.draw_noise()
        return super().step(batch)

    def draw_noise(self) -> None:
        """What makes the noise of this step."""
        if self.config.rna_noise:
            self._noise_seed = int(torch.randint(2**62, (), generator=self.ctx.generator))

    def _noise(self, batch: Batch, like: Tensor) -> Tensor:
        """[B, T, D] standard normal at real tokens, else 0; an example's own, in whatever piece of a batch it is."""
        noise = torch.zeros(like.shape)
        for row, (example, length) in enumerate(zip(batch.examples, batch.attention_mask.sum(1).tolist(), strict=True)):
            digest = hashlib.blake2b(f"{self._noise_seed} {example.id}".encode(), digest_size=7).digest()
            own = torch.Generator().manual_seed(int.from_bytes(digest))
            noise[row, :length] = torch.randn((length, like.shape[-1]), generator=own)
        return noise.to(like.device)

    def forget_activations(self, batch: Batch) -> Tensor:
        return self.ctx.policy.hidden(batch, [self.block])[self.block]

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        f, r = batch["forget"], batch["retain"]
        target = torch.stack([self.targets[e.group] for e in f.examples])[:, None]
        h_r, base = (view.hidden(r, [self.block])[self.block] for view in (self.ctx.policy, self.ctx.reference))
        if self.config.rna_noise:
            base = base.float() + self.config.rna_noise * self._noise(r, base)
        return Loss(
            {
                "forget": self.mean(f, losses.squared_error(self.forget_activations(f), target)),
                "retain": self.mean(r, losses.squared_error(h_r, base)),
            },
            {"retain": self.config.alpha},
        )

    def mean(self, batch: Batch, x_bt: Tensor) -> Tensor:
        if self.config.legacy == "open-unlearning":
            sums, each = batch.sum_per_example(x_bt), 1.0 / lengths(batch)
            return sums.sum() * each.sum() / max(len(each), 1) / batch.totals.examples
        return piece_mean(x_bt.sum(), x_bt.numel(), batch) if self.config.legacy else batch.mean(x_bt)


class Rmu(Steering[RmuConfig]):
    """cards/rmu.py"""

    def target_norm(self, topic: str) -> float:
        return self.config.coefficient


class AdaptiveRmu(Steering[AdaptiveRmuConfig]):
    """cards/adaptive_rmu.py"""

    def target_norm(self, topic: str) -> float:
        examples = [e.example for e in self.ctx.roles["forget"].encoded if e.example.group == topic]
        batch = self.ctx.encode("forget", examples).batch(0, self.ctx.train.batch).to(self.ctx.device)
        h = self.ctx.reference.hidden(batch, [self.block])[self.block]
        return self.config.scale * float(self.mean(batch, h.float().norm(dim=-1)))
