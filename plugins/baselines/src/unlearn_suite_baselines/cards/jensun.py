"""JensUn: Jensen-Shannon divergence to a refusal on forget questions, and to the base model on retain text.

    L = gamma mean_t JSD(onehot(r_t), p(. | x_f, r_<t)) + alpha mean_t JSD(p_base(. | x_r), p(. | x_r))

r: a refusal. Bounded by log 2 on both sides; refusals are averaged per example. Text without a prompt is cut in two.
Public code (nmndeep/JensUn-Unlearning 925e221): gamma = alpha = 1, the target "No idea" without a full stop, lr 8e-6
for ten epochs on a 3B model. There no refusal is put in the answer's place: both means run over every position of the
texts as they are, prompts and padding too, and the target has mass 1 at each of its tokens at every position: with
two of them L_f lies between 0.085 (both at probability 1/2) and 3/2 log 2 (`legacy`; "No idea" by `refusals`).
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
    legacy: bool = False
    """mass 1 at every token of the refusal at every position of the forget text, means over prompts and padding too, as
    the public code does"""
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
