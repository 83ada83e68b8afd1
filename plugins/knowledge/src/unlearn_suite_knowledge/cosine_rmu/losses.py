"""The equations of cosine-rmu that are its own. h, h_ref: [B, T, D]; u: [B, 1, D] or [D]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unlearn_suite import losses

LOG_HIGH, LOG_LOW = math.log(4.0), math.log(0.5)


def toward(h: Tensor, u: Tensor, margin: float) -> Tensor:
    """[B, T]: [mu - cos(h, u)]_+ ; invariant to the norm of h."""
    return (margin - losses.cosine(h, u)).clamp_min(0.0)


def norm_guard(h: Tensor, h_ref: Tensor) -> Tensor:
    """[B, T]: 0 for rho in [0.5, 4], squared log distance outside."""
    log_rho = torch.log(losses.norm_ratio(h, h_ref).clamp_min(losses.EPS))
    return (log_rho - LOG_HIGH).clamp_min(0.0).square() + (LOG_LOW - log_rho).clamp_min(0.0).square()
