"""From probes to directions: what is read of an activation at a block, and along what it is changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unlearn_suite import TrainingError

from . import probes
from .config import ProbeDirectionsConfig
from .features import Features
from .probes import Array, Probe

LDA_SHRINKAGE = 0.01
"""S_w + 0.01 tr(S_w)/D I is what is inverted"""
WEAKEST = 0.05
"""a further axis that separates the classes by less than this share of the first one's distance is left out"""
FEWEST_OF_A_GROUP = 10


@dataclass(frozen=True)
class Axis:
    """One axis of a block. `read`, `edit`: unit vectors [D] towards toxic, the same one but for `leace-edit`.

    `mu0`, `sd0`: mean and deviation of h.read on benign tokens; `scale`: how far toxic tokens are above `mu0`.
    `weight` [D], `bias`: the probe's logit on raw activations (of the axes that are probes).
    """

    read: Tensor
    edit: Tensor
    mu0: float
    sd0: float
    scale: float
    weight: Tensor
    bias: float


@dataclass(frozen=True)
class Direction:
    """The axes of one block (their edits are orthonormal), and the mean benign token activation [D]."""

    axes: tuple[Axis, ...]
    centre: Tensor

    @property
    def v(self) -> Tensor:
        return self.axes[0].read


@dataclass(frozen=True)
class Raw:
    """An axis before it is measured: vectors [D] of any length, and a probe's bias."""

    read: Array
    edit: Array
    bias: float = 0.0

    @classmethod
    def of(cls, vector: Array) -> Raw:
        return cls(vector, vector)


def raw_axes(config: ProbeDirectionsConfig, data: Features, probe: Probe, block: int, seed: int) -> list[Raw]:
    """The axes that `direction` asks for at a block; the first one is the strongest."""
    difference = mean_difference(data)
    rng = np.random.default_rng((seed, block))
    if config.direction == "multi":
        return [Raw(p.weight, p.weight, p.bias) for p in several_probes(data, probe, config.subspace)]
    if config.direction == "diffmean":
        return [Raw.of(difference)]
    if config.direction == "lda":
        return [Raw.of(discriminant(data))]
    if config.direction == "leace-edit":
        return [Raw(discriminant(data), difference)]
    if config.direction == "random":
        return [Raw.of(rng.standard_normal(len(difference)))]
    if config.direction == "shuffled":
        probe = probes.fit(data.x, rng.permutation(data.y), data.x_val, rng.permutation(data.y_val))
    return [Raw(probe.weight, probe.weight, probe.bias)]


def mean_difference(data: Features) -> Array:
    """[D]: mean of toxic minus mean of benign rows."""
    found: Array = data.x[data.y == 1].mean(0) - data.x[data.y == 0].mean(0)
    return found


def discriminant(data: Features) -> Array:
    """[D]: (S_w + 0.01 tr(S_w)/D I)^-1 (mu1 - mu0), S_w the within-class covariance (up to a positive factor)."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    # scikit-learn shrinks (1 - a) S + a tr(S)/D I: the same direction for a/(1 - a) = LDA_SHRINKAGE
    shrinkage = LDA_SHRINKAGE / (1 + LDA_SHRINKAGE)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(data.x, data.y)
    weights: Array = model.coef_[0].astype(np.float64)
    return weights


def several_probes(data: Features, first: Probe, most: int) -> list[Probe]:
    """A probe of each group of toxic text against all benign text, the largest groups first; with fewer than two
    groups, probes each fitted on what is left outside the ones before (INLP)."""
    names, counts = np.unique([g for g, y in zip(data.groups, data.y, strict=True) if y == 1], return_counts=True)
    large = [str(n) for c, n in sorted(zip(-counts, names, strict=True)) if n and -c >= FEWEST_OF_A_GROUP][:most]
    if len(large) > 1:
        groups = np.array(data.groups)
        masks = [(data.y == 0) | (groups == name) for name in large]
        return [probes.fit(data.x[m], data.y[m], data.x_val, data.y_val) for m in masks]
    found = [first]
    while len(found) < most:
        found.append(probe_outside(data, [p.weight for p in found]))
    return found


def probe_outside(data: Features, taken: Sequence[Array]) -> Probe:
    """A probe fitted on what activations hold outside the span of `taken`."""
    basis = gram_schmidt(taken)
    x, x_val = (part - part @ basis.T @ basis for part in (data.x, data.x_val))
    probe = probes.fit(x, data.y, x_val, data.y_val)
    # the same scores on activations that are not projected
    return replace(probe, weight=probe.weight - probe.weight @ basis.T @ basis)


def gram_schmidt(vectors: Iterable[Array], taken: Array | None = None) -> Array:
    """[K, D]: an orthonormal basis of the vectors outside the rows of `taken`, in their order.

    What depends on the ones before is left out.
    """
    rows: list[Array] = [] if taken is None else list(taken)
    start = len(rows)
    for vector in vectors:
        rest = vector / np.linalg.norm(vector)
        for _ in range(2):  # once more, against rounding
            for row in rows:
                rest = rest - (rest @ row) * row
        size = np.linalg.norm(rest)
        if size > 1e-3:
            rows.append(rest / size)
    return np.array(rows[start:]).reshape(-1, len(rows[0]) if rows else 0)


def measure(raws: Sequence[Raw], benign: Tensor, toxic: Tensor, block: int, *, control: bool = False) -> Direction:
    """The raw axes as a `Direction`, scaled on benign and toxic tokens [N, D] float32.

    Raises `TrainingError` when the first axis does not tell the classes apart; `control` directions need not
    and only have their sign turned.
    """
    axes: list[Axis] = []
    for raw in raws:
        axis = next_axis(axes, raw, benign, toxic, flip=control)
        if axis is not None:
            axes.append(axis)
        elif not axes:
            raise TrainingError(
                f"the direction of block {block} does not tell toxic from benign tokens",
                code="probe-direction",
                hint="leave this block out, or give more prompts",
            )
    return Direction(tuple(axes), benign.mean(0))


def next_axis(axes: Sequence[Axis], raw: Raw, benign: Tensor, toxic: Tensor, *, flip: bool = False) -> Axis | None:
    """`raw` as one more axis, orthogonal to the others (Gram-Schmidt); None when it adds nothing."""
    if axes:
        outside = gram_schmidt([raw.read], torch.stack([a.edit for a in axes]).double().cpu().numpy())
        if not len(outside):
            return None
        read = edit = torch.tensor(outside[0], dtype=torch.float32)
    else:
        read, edit = (torch.tensor(r / np.linalg.norm(r), dtype=torch.float32) for r in (raw.read, raw.edit))
    p0, p1 = benign @ read, toxic @ read
    scale = float(p1.mean() - p0.mean())
    if scale < 0 and (axes or flip):
        read, edit, p0, scale = -read, -edit, -p0, -scale
    if scale <= 0 or (axes and scale < WEAKEST * axes[0].scale):
        return None
    weight = torch.tensor(raw.read, dtype=torch.float32)
    return Axis(read, edit, float(p0.mean()), float(p0.std()), scale, weight, raw.bias)


def on_device(axis: Axis, device: torch.device | str) -> Axis:
    """The same on another device."""
    return replace(axis, read=axis.read.to(device), edit=axis.edit.to(device), weight=axis.weight.to(device))
