"""RepNoise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, LossObjective, ModelShape, Requirements, StageContext

from ..cards.repnoise import RepNoiseConfig
from .base import nll
from .circuit_breakers import average
from .trained import chosen

KERNELS, FACTOR = 5, 2.0


class RepNoise(LossObjective[RepNoiseConfig]):
    """cards/repnoise.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        return Requirements(chosen(shape, self.config), reads=shape.n_blocks - 1, logits=True, reference=False)

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        ctx.require_whole_batch("repnoise compares the examples of a batch", gathers=True)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        f, policy, last = batch["forget"], self.ctx.policy, self.ctx.shape.n_blocks - 1
        blocks = sorted({*range(last, -1, -self.config.every)})
        h = policy.hidden(f, blocks)
        twins = [policy.with_hidden(f, last, h[b]) for b in blocks[:-1]]
        ascended = average([self._nll(twin) for twin in [*twins, f]])
        return Loss(
            {
                "retain": nll(policy, batch["retain"]),
                "noise": average([self._noise(f, h[b]) for b in blocks]),
                "ascent": -torch.log1p(ascended) / f.shares,
            },
            {"noise": self.config.beta, "ascent": self.config.alpha},
        )

    def _nll(self, twin: Batch) -> Tensor:
        """Mean next-token loss over the response tokens of the whole batch, on every device."""
        sums = twin.sum_per_example(-self.ctx.policy.token_logprobs(twin, "response"))
        return self.ctx.rows(twin, sums).sum() / max(twin.totals.response, 1.0)

    def _noise(self, f: Batch, h: Tensor) -> Tensor:
        mask = f.mask("response")[..., None].float()
        x, mask = self.ctx.rows(f, h.float() * mask), self.ctx.rows(f, mask)
        noise = torch.randn(x.shape, generator=self.ctx.generator).to(h.device)
        return mmd(x.flatten(1), (noise * mask).flatten(1)) / f.shares


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Biased squared maximum mean discrepancy of rows [N, D] and [N, D], five Gaussian kernels.

    Widths are the mean squared distance between different rows times 1/4 to 4 (a constant for the gradient).
    """
    rows = torch.cat([x, y])
    n = len(rows)
    squared = (rows[:, None] - rows[None]).square().sum(-1)
    width = squared.detach().sum() / (n * n - n) / FACTOR ** (KERNELS // 2)
    kernel = torch.stack([torch.exp(-squared / (width * FACTOR**i).clamp_min(1e-12)) for i in range(KERNELS)]).sum(0)
    k = len(x)
    return (kernel[:k, :k] + kernel[k:, k:] - kernel[:k, k:] - kernel[k:, :k]).mean()
