"""The equations of cosine-rmu (METHODS 4.1), on activations. h, h_ref: [B, T, D]; u: [B, 1, D] or [D]."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

EPS = 1e-6
LOG_HIGH, LOG_LOW = math.log(4.0), math.log(0.5)


def toward(h: Tensor, u: Tensor, margin: float) -> Tensor:
    """[B, T]: [mu - cos(h, u)]_+ ; invariant to the norm of h."""
    return (margin - cosine(h, u)).clamp_min(0.0)


def cosine(h: Tensor, u: Tensor) -> Tensor:
    """[B, T] in float32."""
    return functional.cosine_similarity(h.float(), u.float().expand_as(h), dim=-1, eps=EPS)


def relative_error(h: Tensor, h_ref: Tensor) -> Tensor:
    """[B, T]: |h - h_ref|^2 / |h_ref|^2, exactly 0 where they are equal."""
    h, h_ref = h.float(), h_ref.float()
    return (h - h_ref).square().sum(-1) / h_ref.square().sum(-1).clamp_min(EPS)


def norm_ratio(h: Tensor, h_ref: Tensor) -> Tensor:
    """[B, T]: rho = |h| / |h_ref|."""
    return h.float().norm(dim=-1) / h_ref.float().norm(dim=-1).clamp_min(EPS)


def norm_guard(h: Tensor, h_ref: Tensor) -> Tensor:
    """[B, T]: 0 for rho in [0.5, 4], squared log distance outside."""
    log_rho = torch.log(norm_ratio(h, h_ref).clamp_min(EPS))
    return (log_rho - LOG_HIGH).clamp_min(0.0).square() + (LOG_LOW - log_rho).clamp_min(0.0).square()
