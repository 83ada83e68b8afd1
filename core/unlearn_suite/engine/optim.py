"""AdamW over named tensors with float32 masters, so that bf16 weights do not lose small updates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PrerequisiteError
from ..specs import Train
from .shards import is_sharded, placed_like, whole

_FUSED = ("cpu", "cuda")
"""devices on which torch updates all tensors of AdamW in one kernel: the same equations, several times faster"""
_KERNELS = ("fused", "foreach")
"""how this process computes the update, which a checkpoint of another number of processes must not change"""


def global_norm(tensors: Iterable[Tensor | None]) -> Tensor:
    """L2 norm over all entries of all tensors, float32 scalar."""
    norms = [_norm(t.detach()) for t in tensors if t is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())


def learning_rate(train: Train, step: int) -> float:
    """Linear warm-up from 0 over `warmup` steps, then constant."""
    return train.lr * min(1.0, (step + 1) / train.warmup) if train.warmup else train.lr


class Optimizer:
    """AdamW (decoupled weight decay, global clipping) on the trainable tensors only.

    Tensors that are not float32 get a float32 master; the optimizer steps on the master and the weight
    is its rounding.
    """

    def __init__(self, trainable: Mapping[str, nn.Parameter], train: Train) -> None:
        self.trainable = dict(trainable)
        self.train = train
        self._masters = {
            name: p if p.dtype == torch.float32 else nn.Parameter(p.detach().float())
            for name, p in self.trainable.items()
        }
        self._adamw = _adamw(list(self._masters.values()), train)

    def step(self, index: int) -> dict[str, float]:
        """Clip, update, clear the gradients. Returns the norm before clipping and the rate used."""
        for name, parameter in self.trainable.items():
            master = self._masters[name]
            grad = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            if master is not parameter:
                parameter.grad = None  # no tensor has two gradients for longer than its turn
            master.grad = grad.to(master.dtype)
        norm = global_norm(master.grad for master in self._masters.values())
        factor = 1.0
        if self.train.clip is not None and float(norm) > self.train.clip:
            factor = self.train.clip / (float(norm) + 1e-6)
        rate = learning_rate(self.train, index)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        if factor != 1.0:
            for master in self._masters.values():
                assert master.grad is not None
                master.grad.mul_(factor)
        self._adamw.step()
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                if self._masters[name] is not parameter:
                    parameter.copy_(self._masters[name])
        self.zero_grad()
        return {"grad_norm": float(norm), "lr": rate}

    def finest(self) -> Mapping[str, Tensor]:
        """{name: the float32 master where there is one, else the parameter}: what no update is lost in."""
        return self._masters

    def zero_grad(self) -> None:
        for name, parameter in self.trainable.items():
            parameter.grad = None
            self._masters[name].grad = None

    def state_dict(self) -> dict[str, Any]:
        masters = {n: m.detach().clone() for n, m in self._masters.items() if m is not self.trainable[n]}
        return {"adamw": self._adamw.state_dict(), "masters": masters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """A state of whole tensors, whatever number of processes it was made on."""
        masters = list(self._masters.values())
        moments = {
            index: {key: placed_like(value, masters[index]) for key, value in entry.items()}
            for index, entry in state["adamw"]["state"].items()
        }
        groups = [
            {**saved, **{key: own[key] for key in _KERNELS if key in own}}
            for saved, own in zip(state["adamw"]["param_groups"], self._adamw.param_groups, strict=True)
        ]
        self._adamw.load_state_dict({"state": moments, "param_groups": groups})
        with torch.no_grad():
            for name, master in state["masters"].items():
                self._masters[name].copy_(placed_like(master, self._masters[name]))


def _norm(t: Tensor) -> Tensor:
    return whole(torch.linalg.vector_norm(t, dtype=torch.promote_types(t.dtype, torch.float32))).float()


def _adamw(masters: list[nn.Parameter], train: Train) -> torch.optim.Optimizer:
    """Raises `PrerequisiteError` when 8-bit moments are asked for and bitsandbytes is missing."""
    if train.optimizer == "adamw8bit":
        kind = _bitsandbytes().optim.AdamW8bit
        made: torch.optim.Optimizer = kind(masters, lr=train.lr, betas=train.betas, weight_decay=train.weight_decay)
        return made
    mixed = len({is_sharded(m) for m in masters}) > 1  # one kernel does not take whole and sharded tensors together
    fused = bool(masters) and not mixed and all(m.device.type in _FUSED for m in masters)
    return torch.optim.AdamW(
        masters,
        lr=train.lr,
        betas=train.betas,
        weight_decay=train.weight_decay,
        fused=True if fused else None,
        foreach=False if mixed else None,
    )


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise PrerequisiteError(
            "8-bit optimizer state needs the package bitsandbytes, which is not installed",
            code="extra",
            hint='pip install "unlearn-suite[lowbit]"',
        ) from error
    return bitsandbytes
