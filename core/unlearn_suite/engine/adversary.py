"""A simulated attacker for meta-learned objectives: inner steps on the trainable tensors, undone bit for bit.

First-order read-outs (MLAC, TAR, MUDMAN; METHODS 4.2): the gradient of an outer loss is taken at the
attacked weights and handed back as a gradient for the weights before the attack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .optim import global_norm

InnerOptimizer = Literal["sgd_norm", "adamw", "sgd"]


@dataclass(frozen=True)
class Attack:
    """What the inner loop found: weighted outer gradients by tensor name, and its course."""

    gradient: dict[str, Tensor]
    inner_losses: list[float]
    outer_losses: dict[int, float]
    displacement: float
    """|psi_K - phi| / |phi|"""


class Adversary:
    """K inner steps from the current weights; `restore` is exact and happens on every way out."""

    def __init__(self, trainable: Mapping[str, nn.Parameter]) -> None:
        self.trainable = dict(trainable)

    def attack(
        self,
        inner_loss: Callable[[int], Tensor],
        outer_loss: Callable[[], Tensor],
        *,
        lr: float,
        readouts: Mapping[int, float],
        optimizer: InnerOptimizer = "sgd_norm",
    ) -> Attack:
        """Take max(readouts) inner steps; after step k add `readouts[k]` times the outer gradient.

        `inner_loss(k)` and `outer_loss()` read the policy view. `lr` is the displacement relative to |phi|
        per step for `sgd_norm`, the learning rate otherwise.
        """
        names, params = list(self.trainable), list(self.trainable.values())
        gradient = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in self.trainable.items()}
        inner: list[float] = []
        outer: dict[int, float] = {}
        with self._shadow() as start:
            scale = global_norm(start.values())
            adamw = torch.optim.AdamW(params, lr=lr, weight_decay=0.0) if optimizer == "adamw" else None
            for k in range(1, max(readouts) + 1):
                loss = inner_loss(k - 1)
                grads = torch.autograd.grad(loss, params)
                inner.append(float(loss.detach()))
                self._move(params, grads, adamw, lr * (float(scale) if optimizer == "sgd_norm" else 1.0), optimizer)
                if k in readouts:
                    value = outer_loss()
                    for name, g in zip(names, torch.autograd.grad(value, params), strict=True):
                        gradient[name] += readouts[k] * g.float()
                    outer[k] = float(value.detach())
            moved = global_norm(p.detach() - start[n] for n, p in self.trainable.items())
        return Attack(gradient, inner, outer, float(moved / scale))

    @staticmethod
    def _move(
        params: list[nn.Parameter],
        grads: tuple[Tensor, ...],
        adamw: torch.optim.AdamW | None,
        size: float,
        optimizer: InnerOptimizer,
    ) -> None:
        if adamw is not None:
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            adamw.step()
            return
        norm = float(global_norm(grads)) if optimizer == "sgd_norm" else 1.0
        with torch.no_grad():
            for p, g in zip(params, grads, strict=True):
                p.sub_(g, alpha=size / max(norm, 1e-12))

    @contextmanager
    def _shadow(self) -> Iterator[dict[str, Tensor]]:
        """The weights and their `.grad` are as before on the way out, whatever happens inside."""
        start = {name: p.detach().clone() for name, p in self.trainable.items()}
        grads = {name: p.grad for name, p in self.trainable.items()}
        try:
            yield start
        finally:
            with torch.no_grad():
                for name, p in self.trainable.items():
                    p.copy_(start[name])
                    p.grad = grads[name]
