"""How much of a model runs: positions that go through blocks, with autograd and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from .record import Recorder

_BACKWARD = 2
"""a block's backward pass against its forward pass, about"""


@dataclass(frozen=True)
class Work:
    """Positions (B x T, summed over blocks) that went through blocks with autograd, and without."""

    grad: float
    still: float

    @property
    def forward_passes(self) -> float:
        """All of it in positions of a forward pass, about."""
        return self.still + (1 + _BACKWARD) * self.grad


class BlockWork:
    """Counts what the blocks of a model do from now on. Without a recorder they are hollow and compute nothing: each
    hands on its input, and every parameter that wants a gradient gets one (zero). With one they are only so where
    there is no autograd, and all that they would do is noted."""

    def __init__(self, blocks: Sequence[nn.Module], recorder: Recorder | None = None) -> None:
        self.reset()
        for block in blocks:
            original = block.forward
            block.forward = self._recorded(original, recorder) if recorder else self._hollow(block, original)

    def reset(self) -> None:
        """Begin at nothing."""
        self.grad_calls = self._grad = self._still = 0

    def done(self) -> Work:
        """Since the last `reset`."""
        return Work(self._grad, self._still)

    def _note(self, h: Tensor) -> None:
        grad = torch.is_grad_enabled()
        self.grad_calls += grad
        positions = h.shape[0] * h.shape[1]
        self._grad += positions * grad
        self._still += positions * (not grad)

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
