"""The equations of probe-directions (METHODS 4.4), on activations. h, h_ref: [B, T, D]; v: [D], unit, towards toxic."""

from __future__ import annotations

from torch import Tensor

from unlearn_suite import losses


def hinge(h: Tensor, v: Tensor, tau: float, scale: float) -> Tensor:
    """P1 [B, T]: relu((h.v - tau) / s): 0 at the benign mean (kappa = 0), 1 at the toxic mean."""
    return ((h.float() @ v - tau) / scale).clamp_min(0.0)


def counterfactual(h: Tensor, h_ref: Tensor, v: Tensor, mu0: float) -> Tensor:
    """P5 [B, T]: |h - h*|^2 / |h_ref|^2 with h* = h_ref - relu(h_ref.v - mu0) v."""
    ref = h_ref.float()
    target = ref - (ref @ v - mu0).clamp_min(0.0)[..., None] * v
    return (h.float() - target).square().sum(-1) / ref.square().sum(-1).clamp_min(losses.EPS)


def orthogonal_error(h: Tensor, h_ref: Tensor, v: Tensor) -> Tensor:
    """[B, T]: |(I - v v^T)(h - h_ref)|^2 / |h_ref|^2; blind to motion along v."""
    ref = h_ref.float()
    delta = h.float() - ref
    across = delta - (delta @ v)[..., None] * v
    return across.square().sum(-1) / ref.square().sum(-1).clamp_min(losses.EPS)
