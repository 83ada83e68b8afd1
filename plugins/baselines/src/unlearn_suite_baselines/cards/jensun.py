"""JensUn: Jensen-Shannon divergence to a refusal on forget questions, and to the base model on retain text.

    L = gamma mean_t JSD(onehot(r_t), p(. | x_f, r_<t)) + alpha mean_t JSD(p_base(. | x_r), p(. | x_r))

r: a refusal. Bounded by log 2 on both sides. The paper's weights and target strings are not known to us: options.
Text without a prompt is cut in two.
"""

from __future__ import annotations

from pydantic import Field

from .common import Trains, method


class JensUnConfig(Trains):
    """Options of `jensun`."""

    gamma: float = Field(1.0, ge=0)
    """weight of the forget loss"""
    alpha: float = Field(1.0, ge=0)
    """weight of the retain loss"""
    refusals: tuple[str, ...] = Field((" No idea.",), min_length=1)
    """the wanted answers; each forget example keeps one of them"""
    prompt_share: float = Field(0.5, gt=0, lt=1)
    """share of the words that is the question, where an example has no prompt"""


SPEC = method(
    "jensun",
    "Jensen-Shannon divergence to a refusal on forget text, to the base model on retain text",
    "jensun:JensUn",
    JensUnConfig,
    "Singh et al. 2025, arXiv:2509.02820",
    "variant",
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
