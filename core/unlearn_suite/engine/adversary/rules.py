"""How an attacker turns gradients into steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ..optim import global_norm
from .space import Space

InnerOptimizer = Literal["sgd", "sgd_norm", "adamw"]
"""gradient steps; steps of a length relative to the tensors moved; AdamW from a fresh state, without weight decay"""
TINY = 1e-12


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
