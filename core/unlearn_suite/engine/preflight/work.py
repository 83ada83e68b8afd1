"""How much of a model runs: positions that go through blocks, with autograd and without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from ..views import ModelViews
from .record import Recorder

_BACKWARD = 2
"""a block's backward pass against its forward pass, about"""


@dataclass(frozen=True)
class Work:
    """Positions (B x T, summed over blocks) that went through blocks with autograd, without, and for what is kept of
    the base model. `calls`: of blocks, the first two."""

    grad: float
    still: float
    kept: float
    calls: tuple[int, int] = (0, 0)

    @property
    def forward_passes(self) -> float:
        """All of it but what is kept, in positions of a forward pass, about."""
        return self.still + (1 + _BACKWARD) * self.grad


class TooLong(Exception):
    """The trace of this would take too long."""


class BlockWork:
    """Counts what the blocks of a model do from now on. Without a recorder they are hollow and compute nothing: each
    hands on its input, and every parameter that wants a gradient gets one (zero). With one they are only so where
    there is no autograd, and all that they would do is noted. Raises `TooLong` after `most` calls of blocks."""

    def __init__(self, blocks: Sequence[nn.Module], recorder: Recorder | None = None, most: float = math.inf) -> None:
        self.reset()
        self._recorder = recorder
        self._most = most
        self._keeps = False
        for block in blocks:
            original = block.forward
            block.forward = self._recorded(original, recorder) if recorder else self._hollow(block, original)

    def tell_kept(self, views: ModelViews) -> None:
        """Count apart what these views compute once and keep."""
        original = views.base_value

        def base_value(*args: Any) -> Any:
            self._keeps = True
            try:
                with self._recorder.flops_apart("kept") if self._recorder else nullcontext():
                    return original(*args)
            finally:
                self._keeps = False

        views.base_value = base_value  # type: ignore[method-assign,assignment]

    def reset(self) -> None:
        """Begin at nothing."""
        self._calls = [0, 0]
        self._positions = [0, 0, 0]

    def done(self) -> Work:
        """Since the last `reset`."""
        grad, still, kept = self._positions
        return Work(grad, still, kept, (self._calls[0], self._calls[1]))

    def _note(self, h: Tensor) -> None:
        place = 2 if self._keeps else int(not torch.is_grad_enabled())
        self._positions[place] += h.shape[0] * h.shape[1]
        if not self._keeps:
            self._calls[place] += 1
        if sum(self._calls) > self._most:
            raise TooLong("it runs the model too often to be traced")

    def _recorded(self, original: Any, recorder: Recorder) -> Any:
        def forward(h: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._note(h)
            if torch.is_grad_enabled():
                return original(h, *args, **kwargs)
            with recorder.sizes_only():
                result = original(h, *args, **kwargs)
            with _disable_current_modes():  # a turn of the dimensions, so that no two blocks say the same
                (result[0] if isinstance(result, tuple) else result).copy_(h.roll(1, -1))
            return result

        return forward

    def _hollow(self, block: nn.Module, original: Any) -> Any:
        returns_tuple: list[bool] = []

        def forward(h: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._note(h)
            if not returns_tuple:
                with torch.no_grad():
                    returns_tuple.append(isinstance(original(h, *args, **kwargs), tuple))
            # A product of two tensors saves one for the backward pass; without it nothing would be recomputed.
            one, zero = h.new_ones(()), h.new_zeros(())
            h = h * one
            for parameter in block.parameters():
                if parameter.requires_grad:
                    h = h + zero * parameter.flatten()[0]
            return (h,) if returns_tuple[0] else h

        return forward
