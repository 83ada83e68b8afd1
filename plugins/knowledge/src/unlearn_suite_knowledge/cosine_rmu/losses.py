"""The equations of cosine-rmu that are its own. h, h_ref: [B, T, D]; u: [B, 1, D], [B, T, D] or [D]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unlearn_suite import losses

LOG_HIGH, LOG_LOW = math.log(4.0), math.log(0.5)
AWAY_SHARE, DIVERSITY, LOG_NORM = 0.5, 0.1, 0.1


def toward(h: Tensor, u: Tensor, margin: float) -> Tensor:
    """[B, T]: [mu - cos(h, u)]_+ ; invariant to the norm of h."""
    return (margin - losses.cosine(h, u)).clamp_min(0.0)


def onto(h: Tensor, h_ref: Tensor, u: Tensor, scale: float) -> Tensor:
    """[B, T]: |h - s |h_ref| u|^2 / |h_ref|^2, u of unit length (adaptive RMU, arXiv:2408.06223, for each token)."""
    size = h_ref.float().norm(dim=-1, keepdim=True).clamp_min(losses.EPS)
    return ((h.float() - scale * size * u) / size).square().sum(-1)


def away(h: Tensor, h_ref: Tensor) -> Tensor:
    """[B, T]: [cos(h, h_ref)]_+ (circuit breakers, arXiv:2406.04313)."""
    return losses.cosine(h, h_ref).clamp_min(0.0)


def across(h: Tensor, u: Tensor) -> Tensor:
    """[B, T]: 1 - |cos(h, u)|, either sign will do (TAR's random mapping, arXiv:2408.00761)."""
    return 1.0 - losses.cosine(h, u).abs()


def pooled(h: Tensor, mask: Tensor) -> Tensor:
    """[B, D]: mean of each example over its mask [B, T]."""
    kept = h.float().masked_fill(~mask[..., None], 0.0)
    return kept.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)


def crowding(pools: Tensor) -> Tensor:
    """Scalar: mean over pairs i != j of [cos(pool_i, pool_j)]_+, pools [B, D]; 0 for a single example."""
    count = len(pools)
    if count < 2:
        return pools.sum() * 0.0
    cos = losses.cosine(pools[:, None].expand(count, count, -1), pools[None]).clamp_min(0.0)
    apart = ~torch.eye(count, dtype=torch.bool, device=pools.device)
    return cos.masked_fill(~apart, 0.0).sum() / (count * (count - 1))


def turned(h: Tensor, h_ref: Tensor) -> Tensor:
    """[B, T]: 1 - cos(h, h_ref) + 0.1 log(|h| / |h_ref|)^2."""
    log_rho = torch.log(losses.norm_ratio(h, h_ref).clamp_min(losses.EPS))
    return 1.0 - losses.cosine(h, h_ref) + LOG_NORM * log_rho.square()


def norm_guard(h: Tensor, h_ref: Tensor) -> Tensor:
    """[B, T]: 0 for rho in [0.5, 4], squared log distance outside."""
    log_rho = torch.log(losses.norm_ratio(h, h_ref).clamp_min(losses.EPS))
    return (log_rho - LOG_HIGH).clamp_min(0.0).square() + (LOG_LOW - log_rho).clamp_min(0.0).square()
