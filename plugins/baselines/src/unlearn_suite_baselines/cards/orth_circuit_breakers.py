"""Orthogonal circuit breakers: rerouted activations of different examples must not collapse onto one direction.

    L_orth = mean_{l, i != j} relu(cos(pool_i, pool_j)) mean_i |x_i|,   pool_i = mean_t h_l(x_i)_t
    L = 2 s L_r + 23 (1 - s / 4) L_cb + 10 s L_orth,   s = step / steps

L_cb and L_r as for circuit breakers, both at the targets. Public code: EleutherAI/unlearn. Pairs are taken inside a
(micro-)batch. There padded positions count as zeros in the mean of L_r, and first tokens count everywhere; it trains
LoRA with lr 1e-3. The public default is every block; here every sixth of the depth (Casper et al. take every fifth
block), for cost.
"""

from __future__ import annotations

from pydantic import Field

from .circuit_breakers import ReroutingConfig
from .common import method


class OrthCircuitBreakersConfig(ReroutingConfig):
    """Options of `orth-circuit-breakers`. `targets` none: every sixth of the depth."""

    retain: float = Field(2.0, ge=0)
    """weight of the retain loss at the end"""
    remove: float = Field(23.0, ge=0)
    """weight of the rerouting loss at the beginning; three quarters of it at the end"""
    orth: float = Field(10.0, ge=0)
    """weight of the orthogonality loss at the end"""


SPEC = method(
    "orth-circuit-breakers",
    "Circuit breakers that also keep the rerouted activations of different examples apart",
    "circuit_breakers:OrthCircuitBreakers",
    OrthCircuitBreakersConfig,
    "EleutherAI/unlearn, unlearn/algorithm/orth_circuit_breakers.py",
    "variant",
    train={"steps": 60, "lr": 3e-5, "batch": 8, "length": 64},
)
