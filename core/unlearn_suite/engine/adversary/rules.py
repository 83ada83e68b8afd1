"""How an attacker turns gradients into steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ..optim import global_norm
from ..shards import whole
from .space import Space

InnerOptimizer = Literal["sgd", "sgd_norm", "adamw"]
"""gradient steps; steps of a length relative to the tensors moved; AdamW from a fresh state, without weight decay"""
TINY = 1e-12


def inner_product(x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> float:
    """Sum of x * y over all entries of the tensors that both have, sharded or not; in float32 or finer."""
    return sum(float(whole((_fine(x[n]) * _fine(y[n])).sum())) for n in x if n in y)


class Rule:
    """Updates the moved tensors in place. Tensors that are not float32 (or 64) are the roundings of masters.

    `lr`: learning rate for `sgd` and `adamw`; for `sgd_norm` the length of a step relative to |start|.
    """

    def __init__(self, space: Space, optimizer: InnerOptimizer, lr: float) -> None:
        self._moved = space.moved
        self._masters: dict[str, Tensor] = {
            name: p if p.dtype in (torch.float32, torch.float64) else nn.Parameter(p.detach().float())
            for name, p in space.moved.items()
        }
        self._normalised = optimizer == "sgd_norm"
        self._size = lr * space.scale() if self._normalised else lr
        self._adamw = (
            torch.optim.AdamW(list(self._masters.values()), lr=lr, weight_decay=0.0) if optimizer == "adamw" else None
        )

    def step(self, grads: Mapping[str, Tensor]) -> None:
        """One step; tensors without a gradient stay."""
        if self._adamw is not None:
            for name, master in self._masters.items():
                master.grad = grads[name].to(master.dtype) if name in grads else None
            self._adamw.step()
        else:
            norm = float(global_norm(grads.values())) if self._normalised else 1.0
            with torch.no_grad():
                for name, g in grads.items():
                    self._masters[name].sub_(g.to(self._masters[name].dtype), alpha=self._size / max(norm, TINY))
        with torch.no_grad():
            for name, master in self._masters.items():
                if master is not self._moved[name]:
                    self._moved[name].copy_(master)

    def finest(self) -> Mapping[str, Tensor]:
        """{name: the float32 master where there is one, else the moved tensor}: what no step is lost in."""
        return self._masters

    def slope(self, taken: Mapping[str, Tensor], part: Mapping[str, Tensor], outer: Mapping[str, Tensor]) -> float:
        """d/dt of an outer loss at psi = z - c g, g = taken + t part, at t = 0; `outer` is its gradient at psi.

        c = lr: -c <outer, part>. c = lr |z_0| / |g|: the step turns and keeps its length, so what `part` has along it
        drops out, -c (<outer, part> - <outer, g> <g, part> / |g|^2). Not for AdamW.
        """
        assert self._adamw is None, "no slope through AdamW"
        along = inner_product(outer, part)
        if not self._normalised:
            return -self._size * along
        square = max(float(global_norm(taken.values())), TINY) ** 2
        along -= inner_product(outer, taken) * inner_product(taken, part) / square
        return -self._size / square**0.5 * along


def _fine(t: Tensor) -> Tensor:
    return t.to(torch.promote_types(t.dtype, torch.float32))
