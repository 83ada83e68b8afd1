"""`ctx.adversary`: attacks on the model of a stage, or of anybody who has its views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...errors import PlanError
from ..parts import part
from ..views import ModelViews
from .rules import InnerOptimizer, Rule
from .second_order import OuterLoss, through_differences, through_unrolled
from .space import InnerTensors, opened
from .walk import InnerLoss, Walk, gradients

Order = Literal["first", "finite-difference", "exact"]
"""of the gradient: at the attacked weights as it is (the Hessians of the inner steps dropped); with Hessian
products by central differences; by autograd through the steps"""


@dataclass(frozen=True)
class Attack:
    """What the read-outs said."""

    gradient: dict[str, Tensor]
    """full name -> gradient in float32, of each of the stage's trainable tensors (0 where the outer loss does not
    depend on it)"""
    inner_losses: list[float]
    """the attacker's loss before each of its steps, of the whole batch"""
    outer_losses: dict[int, float]
    """step of a read-out -> the outer loss there, of the whole batch"""
    displacement: float
    """|psi_K - psi_0| / |psi_0| over the tensors that the attacker moved"""


class Adversary:
    """Simulated attackers. Whatever happens inside, the model, its gradients and its views are put back bit for bit.

    On several devices the tensors that move, and the gradient of an `Attack`, are sharded as `ctx.trainable` is.
    Seconds, steps and (in counted steps) FLOPs of attacks are scalars of the training step they run in.

    It is made of two views; a `generator` that draws fresh adapters; `say`, which is told once when an exact attack
    needs another attention kernel; and `total`, which adds the processes' shares of a loss up, so that reported losses
    are the whole batch's.
    """

    def __init__(
        self,
        views: ModelViews,
        generator: torch.Generator,
        say: Callable[[str], None],
        total: Callable[[Tensor], float] = float,
    ) -> None:
        self._views = views
        self._generator = generator
        self._say = say
        self._total = total
        self._told = False

    @contextmanager
    def walk(
        self,
        inner_loss: InnerLoss,
        *,
        steps: int,
        lr: float,
        optimizer: InnerOptimizer = "sgd_norm",
        tensors: InnerTensors = "same",
        rank: int = 8,
    ) -> Iterator[Walk]:
        """An attack step by step: `with adversary.walk(...) as walk: for k in walk: ...`.

        `inner_loss(k)`, k = 0, 1, ..., is a scalar read through the policy view. `lr` is the learning rate; for
        `sgd_norm` the length of a step relative to the tensors moved. `rank` is that of `lora` adapters. Inside, the
        policy is the attacked model and the reference what it always was; afterwards all is as it was before.

        Raises `PlanError` (`lora-tensor`) when no adapter has a place.
        """
        with part("attack") as cost, opened(self._views, tensors, rank, self._generator) as space:
            walk = Walk(space, inner_loss, steps, Rule(space, optimizer, lr), self._total)
            try:
                yield walk
            finally:
                cost.repeats += len(walk.losses)

    def attack(
        self,
        inner_loss: InnerLoss,
        outer_loss: OuterLoss,
        *,
        lr: float,
        readouts: Mapping[int, float],
        optimizer: InnerOptimizer = "sgd_norm",
        tensors: InnerTensors = "same",
        rank: int = 8,
        order: Order = "first",
    ) -> Attack:
        """max(readouts) inner steps; the gradient of sum_k readouts[k] * outer loss after step k.

        Step 0 is before the attack. The gradient is with respect to the stage's trainable tensors, whatever
        the attacker moved; other arguments as in `walk`. Raises `PlanError` when the order cannot be had:
        `inner-optimizer` (not through AdamW), `inner-precision` (not in bfloat16), `attack-devices` (`exact` on several
        devices).
        """
        if order != "first":
            self._check_second_order(order, optimizer)
        if order == "exact":
            self._check_devices()
            return self._exact(inner_loss, outer_loss, lr, readouts, optimizer, tensors, rank)
        with self.walk(inner_loss, steps=max(readouts), lr=lr, optimizer=optimizer, tensors=tensors, rank=rank) as walk:
            if order == "first":
                gradient, outer = self._first_order(walk, outer_loss, readouts)
            else:
                gradient, outer = through_differences(walk, outer_loss, readouts, lr, optimizer == "sgd_norm")
            return self._found(gradient, walk.losses, outer, walk.displacement)

    def _first_order(
        self, walk: Walk, outer_loss: OuterLoss, readouts: Mapping[int, float]
    ) -> tuple[dict[str, Tensor], dict[int, float]]:
        total: dict[str, Tensor] = {}
        outer: dict[int, float] = {}

        def read(k: int) -> None:
            if k in readouts:
                value = outer_loss()
                for name, g in gradients(value, self._views.trainable).items():
                    added = readouts[k] * g.float()
                    total[name] = total[name] + added if name in total else added
                outer[k] = self._total(value.detach())

        read(0)
        for k in walk:
            read(k)
        return total, outer

    def _exact(
        self,
        inner_loss: InnerLoss,
        outer_loss: OuterLoss,
        lr: float,
        readouts: Mapping[int, float],
        optimizer: InnerOptimizer,
        tensors: InnerTensors,
        rank: int,
    ) -> Attack:
        if not self._told:
            self._told = True
            self._say("exact gradients through an attack: plain attention kernels, nothing recomputed, for its time")
        with part("attack") as cost, opened(self._views, tensors, rank, self._generator) as space:
            cost.repeats += max(readouts)
            gradient, inner, outer, moved = through_unrolled(
                space, inner_loss, outer_loss, readouts, lr, optimizer == "sgd_norm"
            )
        return self._found(gradient, inner, outer, moved)

    def _found(
        self, gradient: Mapping[str, Tensor], inner: list[float], outer: dict[int, float], displacement: float
    ) -> Attack:
        """Tensors that the outer loss does not depend on have gradient 0."""
        whole = {
            name: gradient[name].detach().float() if name in gradient else torch.zeros_like(p, dtype=torch.float32)
            for name, p in self._views.trainable.items()
        }
        return Attack(whole, inner, outer, displacement)

    def _check_devices(self) -> None:
        if self._views.replay.is_sharded:
            raise PlanError(
                "exact second-order gradients of a simulated attack are not supported on several devices",
                code="attack-devices",
                hint="set compute.devices to 1, or take finite differences",
            )

    def _check_second_order(self, order: Order, optimizer: InnerOptimizer) -> None:
        if optimizer == "adamw":
            raise PlanError(
                f"{order} gradients go through plain or normalised gradient steps, not through AdamW",
                code="inner-optimizer",
                hint="use sgd or sgd_norm inside, or the first order",
            )
        if any(p.dtype not in (torch.float32, torch.float64) for p in self._views.replay.model.parameters()):
            raise PlanError(
                f"{order} gradients need float32 weights: bfloat16 rounds the differences away",
                code="inner-precision",
                hint="set compute.precision to fp32, or use the first order",
            )
