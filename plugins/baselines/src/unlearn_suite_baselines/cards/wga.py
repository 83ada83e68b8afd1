"""Weighted gradient ascent: ascent weighted by the token's own (detached) probability.

    L_f = mean_{t in y_f} sg(p_t)^beta log p_t,   L = gamma L_f + alpha L_retain

Public code: OpenUnlearning `WGA`, the same (it holds a second model that it never uses).
"""

from __future__ import annotations

from pydantic import Field

from .common import Retains, method


class WgaConfig(Retains):
    """Options of `wga`."""

    beta: float = Field(1.0, ge=0)
    """power of the token probability"""


SPEC = method(
    "wga",
    "Gradient ascent weighted by each token's probability",
    "weighted:Wga",
    WgaConfig,
    "Wang et al. 2025, arXiv:2502.19301",
    "faithful",
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
