"""What is drawn at random in a step, from the stage's generator."""

from __future__ import annotations

import math

import torch

from unlearn_suite import StageContext

from .config import CosineRmuConfig


def uniform(ctx: StageContext) -> float:
    return float(torch.rand((), generator=ctx.generator))


def inner_rate(ctx: StageContext, config: CosineRmuConfig) -> float:
    """eta: log-uniform in `inner_lr`."""
    low, high = config.inner_lr
    return math.exp(math.log(low) + uniform(ctx) * (math.log(high) - math.log(low)))
