"""PDU: flatten the logits of forget answers subject to a retain constraint, primal-dual.

    L = gamma mean_{t in y_f} (max_v z_v - mean_v z_v)^2 + lambda (L_retain - eps),
    lambda <- max(0, lambda + eta (L_retain - eps))  after every step past the warm-up

The dual variable is part of the resumable state. Public code (OpenUnlearning d3d7cf9) takes the logits AT the answer's
tokens instead of those that predict them (`legacy`), counts the warm-up in epochs, and makes eps mandatory: here none
takes the base model's own retain loss plus `slack`. TOFU: alpha 100, eta 5, eps .3; MUSE: 50, 1, .1 to 1.5.
"""

from __future__ import annotations

from pydantic import Field

from .common import Retains, method


class PduConfig(Retains):
    """Options of `pdu`."""

    alpha: float = Field(100.0, ge=0)
    """initial dual variable lambda"""
    eta: float = Field(5.0, ge=0)
    """step size of the dual variable"""
    eps: float | None = Field(None, ge=0)
    """largest retain loss, nats per token (none: the base model's, measured, plus `slack`)"""
    slack: float = Field(0.1, ge=0)
    """nats per token above the base model's retain loss, where `eps` is none"""
    warmup: float = Field(0.5, ge=0, le=1)
    """share of the steps before the dual variable moves (TOFU: 5 of 10 epochs)"""


SPEC = method(
    "pdu",
    "Flatten the logits of forget answers under a retain constraint with a dual variable",
    "pdu:Pdu",
    PduConfig,
    "Entesari et al. 2025, arXiv:2506.05314",
    "faithful",
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
