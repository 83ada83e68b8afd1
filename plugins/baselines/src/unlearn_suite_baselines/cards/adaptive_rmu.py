"""Adaptive RMU: RMU whose target norm follows the block's own activations.

    L = mean_t |h_l(x_f) - beta mean_t|h_l^base(x_f)| u_k|^2 / D + alpha mean_t |h_l(x_r) - h_l^base(x_r)|^2 / D

The norm is measured once per topic. Public code (RebelsNLU-jaist/llm-unlearning) measures it on the topic's first
batch, padding included (`legacy`; there padding is on the left, here on the right, so that its activations differ),
with the model as trained so far; here on one batch of the base model, before the first step. It trains with lr 5e-5
for 150 to 500 batches of 4.
"""

from __future__ import annotations

from pydantic import Field

from .common import method
from .rmu import SteeringConfig


class AdaptiveRmuConfig(SteeringConfig):
    """Options of `adaptive-rmu`."""

    scale: float = Field(5.0, gt=0)
    """beta: target norm over the mean norm of the base model's forget activations"""
    legacy: bool = False
    """average over all positions, padding and the first token too, as the public code does"""


SPEC = method(
    "adaptive-rmu",
    "RMU with a target norm measured on the block's own activations",
    "rmu:AdaptiveRmu",
    AdaptiveRmuConfig,
    "Dang et al. 2024, arXiv:2408.06223",
    "faithful",
    train={"steps": 80, "lr": 3e-4, "batch": 8, "length": 64},
)
