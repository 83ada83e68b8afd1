"""FLAT: f-divergence between a template answer and the forget answer; no retain text, no reference.

    L = -g*(P(y_e | x)) + f*(g*(P(y_f | x))),   P: mean token probability of an answer

    divergence:  KL  -P_e + exp(P_f - 1)             TV  (tanh P_f - tanh P_e) / 2
                 Pearson  -P_e + P_f^2 / 4 + P_f     JS  log(1 + e^-P_e) + P_f + log(1 + e^-P_f) - 2 log 2

Per example, then averaged; public code (UCSC-REAL/FLAT) averages P over the batch first, and over prompt and padding
positions as zeros, so that long prompts and padding weaken it (`legacy`, on each micro-batch). Its template answers are
TOFU's refusals, here `refusals`; text without a prompt is cut in two.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .common import Trains, method
from .idk_dpo import REFUSALS


class FlatConfig(Trains):
    """Options of `flat`."""

    divergence: Literal["kl", "tv", "js", "pearson"] = "kl"
    """which f-divergence"""
    legacy: bool = False
    """one P for all answers of a (micro-)batch, prompts and padding as zeros in its mean, as the public code does"""
    refusals: tuple[str, ...] = Field(REFUSALS, min_length=1)
    """template answers; each forget example keeps one of them"""
    prompt_share: float = Field(0.5, gt=0, lt=1)
    """share of the words that is the question, where an example has no prompt"""


SPEC = method(
    "flat",
    "Widen an f-divergence between template answers and forget answers",
    "flat:Flat",
    FlatConfig,
    "Wang et al. 2024, arXiv:2410.11143",
    "variant",
    roles=("forget",),
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
