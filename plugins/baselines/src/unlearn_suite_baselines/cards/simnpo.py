"""SimNPO: NPO without a reference, on length-normalised likelihood.

    L_f = -(2 / beta) mean_x log sigmoid(beta (nll(y|x) / |y| - delta)),   L = gamma L_f + alpha L_retain

Public code: OpenUnlearning `SimNPO`, the same. The paper's margin gamma stands outside beta: gamma = beta delta.
"""

from __future__ import annotations

from pydantic import Field

from .common import Retains, method


class SimNpoConfig(Retains):
    """Options of `simnpo`."""

    beta: float = Field(4.5, gt=0)
    """inverse temperature, per nat and token"""
    delta: float = 0.0
    """nats per token that the answer's loss should exceed"""
    gamma: float = Field(0.125, ge=0)
    """weight of the forget loss"""


SPEC = method(
    "simnpo",
    "NPO without a reference model, on the mean token loss",
    "npo:SimNpo",
    SimNpoConfig,
    "Fan et al. 2024, arXiv:2410.07163",
    "faithful",
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
