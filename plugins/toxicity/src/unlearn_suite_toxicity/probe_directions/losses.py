"""The equations of probe-directions, on activations. h, h_ref: [..., D]; v: [D], unit, towards toxic; results [...]."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from unlearn_suite import losses

from .config import ProbeDirectionsConfig
from .directions import Axis, Direction


def hinge(h: Tensor, v: Tensor, tau: float, scale: float) -> Tensor:
    """P1: relu((h.v - tau) / s): 0 at the benign mean (kappa = 0), 1 at the toxic mean."""
    return ((h.float() @ v - tau) / scale).clamp_min(0.0)


def cosine_excess(h: Tensor, centre: Tensor, v: Tensor, floor: float) -> Tensor:
    """P2: relu(cos(h - hbar, v) - c0), hbar the mean benign activation [D]."""
    return (losses.cosine(h.float() - centre, v) - floor).clamp_min(0.0)


def match(h: Tensor, v: Tensor, mu0: float, scale: float) -> Tensor:
    """P3: ((h.v - mu0) / s)^2, two-sided."""
    return ((h.float() @ v - mu0) / scale).square()


def logit(h: Tensor, weight: Tensor, bias: float) -> Tensor:
    """P4: softplus(w.h + b) = -log P(benign) by the probe; unbounded above, and never 0."""
    return functional.softplus(h.float() @ weight + bias)


def ablated(h: Tensor, axes: Sequence[Axis]) -> Tensor:
    """h - sum over axes of relu(h.read - mu0) / (read.edit) edit: what is above the benign mean taken out."""
    h = h.float()
    taken = [((h @ a.read - a.mu0) / (a.read @ a.edit)).clamp_min(0.0)[..., None] * a.edit for a in axes]
    return h - sum(taken[1:], taken[0])


def counterfactual(h: Tensor, h_ref: Tensor, axes: Sequence[Axis]) -> Tensor:
    """P5: |h - h*|^2 / |h_ref|^2 with h* the ablated h_ref."""
    size = h_ref.float().square().sum(-1).clamp_min(losses.EPS)
    return (h.float() - ablated(h_ref, axes)).square().sum(-1) / size


def orthogonal_error(h: Tensor, h_ref: Tensor, edits: Sequence[Tensor]) -> Tensor:
    """|(I - V V^T)(h - h_ref)|^2 / |h_ref|^2; blind to motion along the orthonormal `edits`, the rows of V^T."""
    ref = h_ref.float()
    across = h.float() - ref
    for v in edits:
        across = across - (across @ v)[..., None] * v
    return across.square().sum(-1) / ref.square().sum(-1).clamp_min(losses.EPS)


def along_error(h: Tensor, h_ref: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Mean over axes of ((h - h_ref).v / s)^2: blind to all but motion along v, and 1 where it is the distance from
    benign to toxic."""
    moved = h.float() - h_ref.float()
    values = [((moved @ a.read) / a.scale).square() for a in axes]
    return sum(values[1:], values[0]) / len(values)


def forget(config: ProbeDirectionsConfig, h: Tensor, h_ref: Tensor, d: Direction) -> Tensor:
    """The forget loss at one block: P1 to P4 are means over its axes, P5 takes all axes at once."""
    if config.loss == "counterfactual":
        return counterfactual(h, h_ref, d.axes)
    values = [_of_axis(config, h, d, axis) for axis in d.axes]
    return sum(values[1:], values[0]) / len(values)


def _of_axis(config: ProbeDirectionsConfig, h: Tensor, d: Direction, a: Axis) -> Tensor:
    if config.loss == "cosine":
        return cosine_excess(h, d.centre, a.read, config.cosine_floor)
    if config.loss == "match":
        return match(h, a.read, a.mu0, a.scale)
    if config.loss == "logit":
        return logit(h, a.weight, a.bias)
    return hinge(h, a.read, a.mu0 + config.kappa * a.sd0, a.scale)
