"""SatImp: ascent weighted by saturation and importance of each token.

    L_f = mean_{t in y_f} sg(p_t)^beta1 sg(1 - p_t)^beta2 log p_t,   L = gamma L_f + alpha L_retain

Public code: OpenUnlearning `SatImp`, the same. Its YAML has gamma 0.1, alpha 1 (the defaults here), its README
gamma 1, alpha 0.1.
"""

from __future__ import annotations

from pydantic import Field

from .common import Retains, method


class SatImpConfig(Retains):
    """Options of `satimp`."""

    beta1: float = Field(5.0, ge=0)
    """power of the token probability (saturation)"""
    beta2: float = Field(1.0, ge=0)
    """power of its complement (importance)"""
    gamma: float = Field(0.1, ge=0)
    """weight of the forget loss"""


SPEC = method(
    "satimp",
    "Gradient ascent weighted by each token's saturation and importance",
    "weighted:SatImp",
    SatImpConfig,
    "Yang et al. 2025, arXiv:2505.11953",
    "faithful",
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
