"""UNDIAL: distil the base model with the true token's logit pushed down.

    L_f = mean_{t in y_f} CE(softmax(z_base - beta onehot(y_t)), softmax(z)),   L = gamma L_f + alpha L_retain

Public code (OpenUnlearning d3d7cf9) averages over prompts and padding as well, and there the ignored label -100 lowers
token V-100 of the teacher: `legacy` does the same.
"""

from __future__ import annotations

from pydantic import Field

from .common import Retains, method


class UndialConfig(Retains):
    """Options of `undial`."""

    beta: float = Field(10.0, ge=0)
    """how far the teacher's logit of the true token is lowered"""
    alpha: float = Field(0.0, ge=0)
    """weight of the retain loss (0: retain text is not read)"""


SPEC = method(
    "undial",
    "Distil the base model with the true token's logit lowered",
    "undial:Undial",
    UndialConfig,
    "Dong et al. 2024, arXiv:2402.10052",
    "faithful",
    train={"steps": 60, "lr": 3e-5, "batch": 8, "length": 64},
)
