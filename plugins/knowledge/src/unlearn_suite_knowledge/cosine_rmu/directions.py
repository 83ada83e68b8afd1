"""Target directions u, one per topic (METHODS 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

COMPONENTS = 4


def draw(
    kind: str, generator: torch.Generator, h_forget: Tensor, h_retain: Tensor, previous: Sequence[Tensor]
) -> Tensor:
    """A unit vector [D] for one topic. `h_forget`, `h_retain`: base activations [N, D] of content tokens.

    `gauss_orth` removes the mean activations, the top components of the retain activations and the
    directions of earlier topics: at small D a random direction is not neutral (sd of its cosine is 1/sqrt(D)).
    `neg_mean` draws nothing: it leads from the forget mean to the retain mean.
    """
    d = h_retain.shape[1]
    if kind == "neg_mean":
        u = h_retain.float().cpu().mean(dim=0) - h_forget.float().cpu().mean(dim=0)
    elif kind == "rand_pos":
        u = torch.rand(d, generator=generator)
    else:
        u = torch.randn(d, generator=generator)
    if kind == "gauss_orth":
        u = u - _project(u, _basis(h_forget.float().cpu(), h_retain.float().cpu(), previous))
    return u / u.norm()


def _basis(h_forget: Tensor, h_retain: Tensor, previous: Sequence[Tensor]) -> Tensor:
    """Orthonormal rows spanning what a target direction must not contain."""
    centred = h_retain - h_retain.mean(dim=0)
    count = min(COMPONENTS, h_retain.shape[1] // 4, h_retain.shape[0] - 1)
    components = torch.linalg.svd(centred, full_matrices=False).Vh[: max(count, 0)]
    rows = torch.stack([h_retain.mean(dim=0), h_forget.mean(dim=0), *components, *previous])
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
    q, r = torch.linalg.qr(rows.T.double())
    return q[:, r.diagonal().abs() > 1e-8].T.float()


def _project(u: Tensor, basis: Tensor) -> Tensor:
    return basis.T @ (basis @ u)
