"""How much of a model runs: positions that go through blocks, with autograd and without."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..replay import Replay
from ..views import ModelViews
from .hollow import is_watched, make_hollow
from .record import Recorder
from .stamps import Stamps, parts_of

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
    """Counts what the blocks of a model do from now on. Without a recorder they are hollow (`hollow.py`). With one they
    compute nothing where there is no autograd, and all that they would do is noted; a block with hooks inside runs as
    it is, for the hooks to see. Raises `TooLong` after `most` calls of blocks."""

    def __init__(self, replay: Replay, recorder: Recorder | None = None, most: float = math.inf) -> None:
        self.reset()
        self._recorder = recorder
        self._most = most
        self._keeps = False
        self._times = 1
        _leave_values(replay)
        if recorder is None:
            make_hollow(replay, self._note)
            return
        stamps = Stamps(recorder)
        for block in replay.blocks:
            block.forward = self._recorded(block, stamps)

    def tell_kept(self, views: ModelViews) -> None:
        """Count apart what these views compute once and keep."""
        original = views._base_value  # without its own count of FLOPs

        def base_value(*args: Any) -> Any:
            self._keeps, times = True, self._times
            self.count_as(1)
            try:
                with self._recorder.flops_apart("kept") if self._recorder else nullcontext():
                    return original(*args)
            finally:
                self._keeps = False
                self.count_as(times)

        views.base_value = base_value  # type: ignore[method-assign,assignment]

    def count_as(self, times: int) -> None:
        """From now on all work, and all FLOPs of the recorder, count so often."""
        self._times = times
        if self._recorder:
            self._recorder.times = times

    def reset(self) -> None:
        """Begin at nothing."""
        self._calls = [0, 0]
        self._positions = [0, 0, 0]

    def done(self) -> Work:
        """Since the last `reset`."""
        grad, still, kept = self._positions
        return Work(grad, still, kept, (self._calls[0], self._calls[1]))

    def _note(self, h: Tensor, blocks: int = 1) -> None:
        place = 2 if self._keeps else int(not torch.is_grad_enabled())
        self._positions[place] += h.shape[0] * h.shape[1] * blocks * self._times
        if not self._keeps:
            self._calls[place] += blocks * self._times
        if sum(self._calls) > self._most:
            raise TooLong("it runs the model too often to be traced")

    def _recorded(self, block: nn.Module, stamps: Stamps) -> Any:
        modules, original = list(block.modules()), block.forward
        kind = stamps.kind(modules)

        def forward(h: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._note(h)
            if torch.is_grad_enabled() or is_watched(modules):
                return original(h, *args, **kwargs)
            return stamps.run((kind, parts_of(modules)), original, h, args, kwargs)

        return forward


def _leave_values(replay: Replay) -> None:
    """Have passes without autograd take the weights as they are: to put others in their place takes longer than what is
    left of a pass, and changes no size."""
    call_base, head = replay._call_base, replay.head

    def taken(params: Mapping[str, Tensor] | None) -> Mapping[str, Tensor] | None:
        return params if torch.is_grad_enabled() else None

    replay._call_base = lambda batch, params: call_base(batch, taken(params))  # type: ignore[method-assign]
    replay.head = lambda last_hidden, params=None: head(last_hidden, taken(params))  # type: ignore[method-assign]
