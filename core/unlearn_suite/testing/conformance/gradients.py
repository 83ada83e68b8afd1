"""Checks of gradients: the same however a batch is cut, and the derivative of the loss that is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from ...errors import PlanError
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
    from ..around import Displaced

    gradients: dict[str, Tensor] = {}
    objective = Displaced(bench.objective())
    with _first_gradients(gradients):
        run = bench.run(objective=objective, stop_after=1, steps=1, micro_batch=cut)
    return gradients or {name: run.weights[name] - before for name, before in objective.start.items()}


@check("OBJ-MICRO", "objective", "one batch gives the gradient of its micro-batches")
def micro_batches_add_up(subject: Subject) -> None:
    from ...engine.optim import global_norm
    from .bench import benches

    for bench in benches(subject):
        whole = _first_change(bench, None)
        size = float(global_norm(whole.values()))
        for cut in CUTS:
            try:
                parts = _first_change(bench, cut)
            except PlanError as error:
                if error.code != "micro-batch":
                    raise
                raise Skipped(error.message) from error
            gap = float(global_norm(tensor - parts[name] for name, tensor in whole.items()))
            if gap > CUT_TOLERANCE * size:
                message = f"cut into micro-batches of {cut} the gradient is off by {gap / size:.1%} of its norm"
                raise CheckFailed(f"{message}: take means with batch.mean or batch.mean_examples")


@check("OBJ-GRADIENT", "objective", "the gradient is that of the loss, by finite differences in float64")
def gradient_is_right(subject: Subject) -> None:
    from .bench import benches

    for bench in benches(subject):
        bench.run(model=bench.model().double(), objective=_slopes(bench.objective()), steps=1)


def _slopes(inner: Any) -> Any:
    """The objective, with every loss that its first step gives to `ctx.backward` measured."""
    from ...engine.objective import LossObjective
    from ..around import Around, displace

    class Slopes(Around):
        def step(self, batch: Mapping[str, Any]) -> dict[str, float]:
            seen: set[Any] = set()
            backward = self.ctx.backward

            def measured(loss: Any, batch: Mapping[str, Any]) -> dict[str, float]:
                if (name := getattr(loss, "__qualname__", loss)) not in seen:
                    seen.add(name)
                    _compare_slopes(self.ctx, loss, batch)
                return backward(loss, batch)

            displace(self.ctx)
            with patch.object(self.ctx, "backward", measured):
                scalars = self.inner.step(batch)
            if not seen:
                if not isinstance(self.inner, LossObjective):
                    raise Skipped("it gives no loss to ctx.backward")
                _compare_slopes(self.ctx, self.inner.loss, batch)
            return scalars

    return Slopes(inner)


def _compare_slopes(ctx: Any, loss: Any, batch: Mapping[str, Any]) -> None:
    """Part by part, compare the gradient with differences of the part. Raises `CheckFailed`."""
    state = ctx.generator.get_state()

    def parts() -> dict[str, Tensor]:
        ctx.generator.set_state(state)
        ctx.views.clear()
        return dict(loss(batch).parts)

    first = parts()
    if not any(part.requires_grad for part in first.values()):
        raise CheckFailed("the loss has no gradient: nothing in it depends on ctx.policy")
    for name in first:
        _compare_part(list(ctx.trainable.values()), name, parts)
    ctx.generator.set_state(state)
    ctx.views.clear()


def _compare_part(params: list[Any], name: str, parts: Callable[[], Mapping[str, Tensor]]) -> None:
    """Along the gradient, and half-way from it to a random direction."""
    import torch

    def value() -> Tensor:
        return parts()[name]

    part = value()
    found = torch.autograd.grad(part, params, allow_unused=True) if part.requires_grad else [None] * len(params)
    grads = [torch.zeros_like(p) if g is None else g.double() for p, g in zip(params, found, strict=True)]
    noise = torch.Generator().manual_seed(0)
    away = [torch.randn(p.shape, generator=noise, dtype=torch.float64) for p in params]
    size, height = _norm(grads), abs(float(part.detach()))
    mixed = [g / max(size, 1e-30) + r / _norm(away) for g, r in zip(grads, away, strict=True)]
    for direction in (grads, mixed):
        length = _norm(direction)
        if length == 0.0:
            continue
        unit = [d / length for d in direction]
        told = float(sum((g * d).sum() for g, d in zip(grads, unit, strict=True)))
        reach = 1e-2 * _norm([p.detach() for p in params])
        h = min(reach, 5e-4 * max(height, min(1e-3, 0.1 * reach * size)) / size) if size else reach
        wide, narrow = (_slope(params, unit, width, value) for width in (h, h / 2))
        slope = (4 * narrow - wide) / 3
        unsure = LOSS_ROUNDING * height / h + abs(narrow - wide)
        if abs(slope - told) > SLOPE_TOLERANCE * size + unsure:
            message = f"along a direction {name!r} changes by {slope:.4g} per unit and the gradient says {told:.4g}"
            raise CheckFailed(f"{message}: is something held constant that depends on the weights?")


def _norm(tensors: list[Tensor]) -> float:
    return float(sum(t.square().sum() for t in tensors)) ** 0.5


def _slope(params: list[Any], unit: list[Tensor], h: float, value: Callable[[], Tensor]) -> float:
    """Central difference of the loss along a unit direction; the weights are as before afterwards."""
    import torch

    ends = []
    kept = [p.detach().clone() for p in params]
    with torch.no_grad():
        for sign in (1.0, -1.0):
            for parameter, start, d in zip(params, kept, unit, strict=True):
                parameter.copy_(start + sign * h * d)
            ends.append(float(value().detach()))
        for parameter, start in zip(params, kept, strict=True):
            parameter.copy_(start)
    return (ends[0] - ends[1]) / (2 * h)
