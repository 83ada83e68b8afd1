"""Negative preference optimisation: ascent that fades as the answer falls below the base model's likelihood.

    L_f = -(2 / beta) mean_x log sigmoid(-beta (log p(y|x) - log p_base(y|x))),   L = gamma L_f + alpha L_retain

log p(y|x) is summed over the answer's tokens. Public code: OpenUnlearning `NPO`, the same. MUSE's and Unlearn-Smooth's
code take token means or raw logits instead: `per_token` gives the mean form, per answer (Unlearn-Smooth's mean is over
all tokens of a batch, before the sigmoid).
"""

from __future__ import annotations

from pydantic import Field

from .common import Retains, method


class NpoConfig(Retains):
    """Options of `npo`."""

    beta: float = Field(0.1, gt=0)
    """inverse temperature, per nat"""
    per_token: bool = False
    """divide each log-ratio by the number of answer tokens (Unlearn-Smooth, of one answer)"""


SPEC = method(
    "npo",
    "Lower the likelihood of forget answers relative to the base model's, ever more softly",
    "npo:Npo",
    NpoConfig,
    "Zhang et al. 2024, arXiv:2404.05868",
    "faithful",
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
