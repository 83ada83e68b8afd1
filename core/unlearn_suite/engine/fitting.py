"""A step that does not fit into the device's memory is taken again in smaller pieces: same batch, same gradient."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ..errors import PrerequisiteError
from .objective import Objective

if TYPE_CHECKING:
    from .context import StageContext

T = TypeVar("T")


class Start:
    """What an attempt may change before it fails: gradients, the generator, and the objective's own state."""

    def __init__(self, ctx: StageContext, objective: Objective[Any] | None = None) -> None:
        self._ctx = ctx
        self._grads = {n: p.grad.clone() for n, p in ctx.trainable.items() if p.grad is not None}
        self._generator = ctx.generator.get_state()
        self._updates = ctx.updates
        self._objective = objective
        self._state = copy.deepcopy(objective.state_dict()) if objective else {}

    def restore(self) -> None:
        """Raises `PrerequisiteError` when the weights have been updated since: the step cannot be taken again."""
        ctx = self._ctx
        if ctx.updates != self._updates:
            raise _too_large(ctx, "the update of the weights does not fit")
        for name, parameter in ctx.trainable.items():
            parameter.grad = self._grads[name].clone() if name in self._grads else None
        ctx.generator.set_state(self._generator)
        if self._objective and self._state:
            self._objective.load_state_dict(copy.deepcopy(self._state))
        ctx.views.clear()
        gc.collect()
        if ctx.device.type == "cuda":
            torch.cuda.empty_cache()


def until_it_fits(ctx: StageContext, rows: int, start: Start, work: Callable[[], T]) -> T:
    """`work()`, again from `start` with half the micro-batch whenever memory runs out; for the rest of the stage.

    On several processes, which must do the same at the same time, it is an error instead.

    `rows`: examples per role of the whole batch. Raises `PrerequisiteError` when one example does not fit.
    """
    while True:
        try:
            return work()
        except torch.OutOfMemoryError as error:
            if ctx.processes.size > 1:  # the others are in the middle of this step
                raise _too_large(ctx, "the step does not fit", "set a smaller `micro_batch`, or ") from error
            # leave the handler first: the error holds the frames, and with them the tensors, of the attempt
        start.restore()
        _halve(ctx, rows)


def _halve(ctx: StageContext, rows: int) -> None:
    if ctx.whole_batch:
        raise _too_large(ctx, "the batch, which the objective needs whole, does not fit", "take a smaller `batch`, or ")
    now = min(ctx.micro_batch or rows, rows)
    if now <= 1:
        raise _too_large(ctx, "one example per role does not fit")
    ctx.micro_batch = (now + 1) // 2
    ctx.services.warn(
        f"step {ctx.step_index} does not fit into the memory of {ctx.device}: from now on {ctx.micro_batch} instead of "
        f"{now} examples per forward pass (the batch and its gradient stay the same)"
    )


def _too_large(ctx: StageContext, message: str, first: str = "") -> PrerequisiteError:
    return PrerequisiteError(
        f"{message} into the memory of {ctx.device}",
        code="memory",
        where=f"step {ctx.step_index}",
        hint=f"{first}lower `length`, set `recompute: true` or `lora`, or take precision: bf16 or a smaller model",
    )
