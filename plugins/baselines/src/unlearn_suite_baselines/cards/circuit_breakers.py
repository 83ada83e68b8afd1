"""Circuit breakers (representation rerouting): make forget activations orthogonal to the base model's.

    L_cb = mean_{l in targets, t} relu(cos(h_l, h_l^base)),   L_r = mean_{l, t} |h_l - h_l^base|
    L = a s L_r + a (1 - s) L_cb,   s = step / (2 steps)

The paper's targets are outputs of blocks 9 and 19 of 32; it trains LoRA (rank 16, alpha 16) on all matrices of the
blocks up to there: add `lora: {rank: 16, alpha: 16}` to the stage, or leave it out to train the matrices themselves.
It takes 150 steps of 16 with lr 1e-4. Public code counts padded positions of L_r as zeros in the mean, and takes
hidden states with the embeddings and the last one after the final norm; here all blocks' outputs, over real tokens.
`retain_at: targets` reads nothing above the targets.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .common import Trains, method


class ReroutingConfig(Trains):
    """Options that circuit breakers share."""

    targets: tuple[int, ...] | None = None
    """blocks whose outputs are rerouted, 0-based"""
    tensors: str = "linear"
    """`linear`, `all`, `mlp`, `mlp_out`, `attn_out` or a regular expression; in blocks 0 to the last target"""


class CircuitBreakersConfig(ReroutingConfig):
    """Options of `circuit-breakers`. `targets` none: 0.28 and 0.59 of the depth (9 and 19 of 32)."""

    alpha: float = Field(10.0, gt=0)
    """a: overall weight, shared between the two losses by the schedule"""
    retain_weight: float = Field(1.0, ge=0)
    """further weight of L_r (1 as published; its gradient does not depend on the activations' norm, that of L_cb falls
    with it: where norms are above 100, as SmolLM2's, the published weight lets nothing be rerouted)"""
    retain_at: Literal["all", "targets"] = "all"
    """blocks at which retain activations are held"""


SPEC = method(
    "circuit-breakers",
    "Make forget activations orthogonal to the base model's, hold retain activations",
    "circuit_breakers:CircuitBreakers",
    CircuitBreakersConfig,
    "Zou et al. 2024, arXiv:2406.04313",
    "faithful",
    train={"steps": 60, "lr": 3e-5, "batch": 8, "length": 64},
)
