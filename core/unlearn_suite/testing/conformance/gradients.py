"""Checks of gradients: the same however a batch is cut, and the derivative of the loss that is reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from .check import CheckFailed, Skipped, check
from .subject import Subject

if TYPE_CHECKING:
    from torch import Tensor

    from .bench import Bench

CUTS = (1, 3)
CUT_TOLERANCE = 1e-4
"""of the gradient's norm; float32 sums in another order stay well below"""
SLOPE_TOLERANCE = 0.02
"""of the gradient's norm"""
LOSS_ROUNDING = 2e-6
"""relative error of a loss whose means are taken in float32"""
NUDGE = 0.02
"""relative noise on the trained weights, so that the policy is not the reference, where many losses have a kink"""


@contextmanager
def _first_gradients(found: dict[str, Tensor]) -> Iterator[None]:
    """The gradients that the first update of a stage is given."""
    from ...engine.optim import Optimizer

    step = Optimizer.step

    def noted(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        for name, parameter in optimizer.trainable.items():
            if parameter.grad is not None:
                found.setdefault(name, parameter.grad.detach().clone())
        return step(optimizer, *args, **kwargs)

    with patch.object(Optimizer, "step", noted):
        yield


def _first_change(bench: Bench, cut: int | None) -> dict[str, Tensor]:
    """The first step's gradients; the change of the weights where an objective updates them by itself."""
    gradients: dict[str, Tensor] = {}
    with _first_gradients(gradients):
        run = bench.run(stop_after=1, steps=1, micro_batch=cut)
    return gradients or {name: run.weights[name] - before for name, before in run.original.items()}


@check("OBJ-MICRO", "objective", "one batch gives the gradient of its micro-batches")
def micro_batches_add_up(subject: Subject) -> None:
    from ...engine.optim import global_norm
    from .bench import benches

    for bench in benches(subject):
        whole = _first_change(bench, None)
        size = float(global_norm(whole.values()))
        for cut in CUTS:
            parts = _first_change(bench, cut)
            gap = float(global_norm(tensor - parts[name] for name, tensor in whole.items()))
            if gap > CUT_TOLERANCE * size:
                message = f"cut into micro-batches of {cut} the gradient is off by {gap / size:.1%} of its norm"
                raise CheckFailed(f"{message}: take means with batch.mean or batch.mean_examples")


@check("OBJ-GRADIENT", "objective", "the gradient is that of the loss, by finite differences in float64")
def gradient_is_right(subject: Subject) -> None:
    from ...engine.objective import LossObjective, Objective
    from .bench import benches

    if not issubclass(subject.target(), LossObjective):
        raise Skipped("it owns its update, so there is no loss to differentiate")

    class Slopes(Objective[Any]):
        """Measures slopes in place of the first step."""

        def __init__(self, inner: Any) -> None:
            super().__init__(inner.config)
            self.inner = inner

        def requirements(self, shape: Any) -> Any:
            return self.inner.requirements(shape)

        def setup(self, ctx: Any) -> None:
            self.ctx = ctx
            self.inner.setup(ctx)

        def step(self, batch: Mapping[str, Any]) -> dict[str, float]:
            if fault := _slope_fault(self.inner, batch):
                raise CheckFailed(fault)
            return {"loss": 0.0}

    for bench in benches(subject):
        bench.run(model=bench.model().double(), objective=Slopes(bench.objective()), steps=1)


def _slope_fault(objective: Any, batch: Mapping[str, Any]) -> str:
    """Compare the slope along the gradient, and half-way from it to a random direction, with differences."""
    import torch

    ctx = objective.ctx
    state = ctx.generator.get_state()
    params = list(ctx.trainable.values())
    noise = torch.Generator().manual_seed(0)

    def value() -> Tensor:
        ctx.generator.set_state(state)
        ctx.views.clear()
        total: Tensor = objective.loss(batch).total()
        return total

    def random_like() -> list[Tensor]:
        return [torch.randn(p.shape, generator=noise, dtype=torch.float64) for p in params]

    with torch.no_grad():
        for parameter, r in zip(params, random_like(), strict=True):
            parameter.add_(NUDGE * parameter.std() * r)
    loss = value()
    if not loss.requires_grad:
        return "the loss has no gradient: nothing in it depends on ctx.policy"
    found = torch.autograd.grad(loss, params, allow_unused=True)
    grads = [torch.zeros_like(p) if g is None else g.double() for p, g in zip(params, found, strict=True)]
    size = _norm(grads)
    away = random_like()
    mixed = [g / max(size, 1e-30) + r / _norm(away) for g, r in zip(grads, away, strict=True)]
    for direction in (grads, mixed):
        length = _norm(direction)
        if length == 0.0:
            continue
        unit = [d / length for d in direction]
        told = float(sum((g * d).sum() for g, d in zip(grads, unit, strict=True)))
        reach = 1e-2 * _norm([p.detach() for p in params])
        h = min(reach, 5e-4 * max(abs(float(loss.detach())), 1e-3) / max(size, 1e-30))
        slope = (4 * _slope(params, unit, h / 2, value) - _slope(params, unit, h, value)) / 3
        if abs(slope - told) > SLOPE_TOLERANCE * size + LOSS_ROUNDING * abs(float(loss.detach())) / h:
            return f"along a direction the loss changes by {slope:.4g} per unit and the gradient says {told:.4g}"
    return ""


def _norm(tensors: list[Tensor]) -> float:
    return float(sum(t.square().sum() for t in tensors)) ** 0.5


def _slope(params: list[Any], unit: list[Tensor], h: float, value: Any) -> float:
    """Central difference of the loss along a unit direction; the weights are as before afterwards."""
    import torch

    ends = []
    kept = [p.detach().clone() for p in params]
    with torch.no_grad():
        for sign in (1.0, -1.0):
            for parameter, start, d in zip(params, kept, unit, strict=True):
                parameter.copy_(start + sign * h * d)
            ends.append(float(value()))
        for parameter, start in zip(params, kept, strict=True):
            parameter.copy_(start)
    return (ends[0] - ends[1]) / (2 * h)
