"""Gradients through the attack: what an outer loss at attacked weights says about the weights before it.

One inner step is z' = z - c P g(z): z holds the trainable and the moved tensors, g is the gradient of the inner
loss, P keeps the moved part. c is the learning rate, or lr |P z_0| / |P g(z)| for normalised steps. Both functions
give the derivative of sum_k w_k L_outer(z_k) in the trainable tensors of z_0, including that of both norms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..optim import global_norm
from .rules import TINY, inner_product
from .space import Space
from .walk import InnerLoss, Walk, gradients

OuterLoss = Callable[[], Tensor]
"""a scalar, read through the policy view: the loss at the attacked weights"""
Named = dict[str, Tensor]
FD_STEP = 1e-4
"""central differences: length of the probe relative to |moved|. At 1e-2 the third derivatives of a model of which all
weights move spoil the result (cosine with the exact gradient below 0.5 on tiny models); at 1e-4 none did"""


def through_unrolled(
    space: Space, inner_loss: InnerLoss, outer_loss: OuterLoss, readouts: Mapping[int, float], lr: float, norm: bool
) -> tuple[Named, list[float], dict[int, float], float]:
    """Exact: autograd through the inner steps. Memory grows with their number.

    Returns (gradient by name, inner losses, outer losses, displacement).
    """
    views = space.views
    z: Named = dict(space.union)
    factor = lr * _norm([z[n] for n in space.moved]) if norm else torch.as_tensor(lr)
    inner: list[float] = []
    outer: dict[int, float] = {}
    total: Tensor | None = None
    with views.replay.twice_differentiable():
        for k in range(max(readouts) + 1):
            with views.policy_at(z):
                if k in readouts:
                    value = outer_loss()
                    outer[k] = float(value.detach())
                    total = readouts[k] * value if total is None else total + readouts[k] * value
                if k < max(readouts):
                    loss = inner_loss(k)
                    inner.append(float(loss.detach()))
                    z = _unrolled_step(z, loss, space, factor, norm)
        assert total is not None, "there is at least one read-out"
        gradient = gradients(total, views.trainable)
    moved = global_norm(z[n].detach() - start for n, start in space.start.items())
    return gradient, inner, outer, float(moved) / max(space.scale(), TINY)


def _unrolled_step(z: Named, loss: Tensor, space: Space, factor: Tensor, norm: bool) -> Named:
    names = list(space.moved)
    found = torch.autograd.grad(loss, [z[n] for n in names], create_graph=True, allow_unused=True)
    grads = {n: g for n, g in zip(names, found, strict=True) if g is not None}
    size = factor / _norm(list(grads.values())) if norm else factor
    return {**z, **{n: z[n] - size * g for n, g in grads.items()}}


def _norm(tensors: list[Tensor]) -> Tensor:
    """|.| in the tensors' own dtype, differentiable (`global_norm` is neither)."""
    return torch.stack([t.square().sum() for t in tensors]).sum().sqrt()


def through_differences(
    walk: Walk, outer_loss: OuterLoss, readouts: Mapping[int, float], lr: float, norm: bool
) -> tuple[Named, dict[int, float]]:
    """Backwards along the walk, each Hessian product by central differences of the inner gradient.

    Keeps a copy of the moved tensors and of the gradient for every step; costs two further inner gradients per step.
    """
    space = walk.space
    outer: dict[int, float] = {}
    said: dict[int, Named] = {}
    places: list[Named] = []
    taken: list[Named] = []

    def read(k: int) -> None:
        if k in readouts:
            value = outer_loss()
            outer[k] = walk.total(value.detach())
            said[k] = {n: readouts[k] * g for n, g in gradients(value, space.union).items()}

    read(0)
    for k in range(1, walk.steps + 1):
        places.append({n: p.detach().clone() for n, p in space.moved.items()})
        taken.append(walk.step())
        read(k)
    end = {n: p.detach().clone() for n, p in space.moved.items()}
    v: Named = {}
    along_start = 0.0
    for k in range(walk.steps, 0, -1):
        v = _sum(v, said.get(k, {}))
        v, along = _back_one_step(walk, k - 1, v, places[k - 1], taken[k - 1], lr, norm)
        along_start += along
    v = _sum(v, said.get(0, {}))
    if norm:
        v = _sum(v, {n: along_start / max(space.scale(), TINY) * s for n, s in space.start.items()})
    space.put(end)
    return {n: g for n, g in v.items() if n in space.views.trainable}, outer


def _back_one_step(
    walk: Walk, k: int, v: Named, place: Named, taken: Named, lr: float, norm: bool
) -> tuple[Named, float]:
    """(v - c H d, the derivative in |z_0|), where d is the part of v that the step lets through."""
    space = walk.space
    d = {n: v[n] for n in taken if n in v}
    size, along = lr, 0.0
    if norm:
        length = max(float(global_norm(taken.values())), TINY)
        share = inner_product(d, taken) / length
        zero = {n: torch.zeros_like(g) for n, g in taken.items()}
        d = {n: d.get(n, zero[n]) - share / length * taken[n] for n in taken}
        size, along = lr * space.scale() / length, -lr * share
    reach = float(global_norm(d.values()))
    if reach == 0.0:
        return v, along
    e = FD_STEP * float(global_norm(place.values())) / reach
    sides: list[Named] = []
    for sign in (e, -e):
        space.put({n: p + sign * d[n] if n in d else p for n, p in place.items()})
        sides.append(gradients(walk.inner_loss(k), space.union))
    plus, minus = sides
    return _sum(v, {n: -size / (2.0 * e) * (plus[n] - minus[n]) for n in plus}), along


def _sum(v: Named, w: Named) -> Named:
    return {**v, **{n: v[n] + g if n in v else g for n, g in w.items()}}
