"""Blocks that compute nothing: each hands on its input, and every parameter that wants a gradient gets one (zero).

A pass goes through all of them in one step, which is what makes a thousand passes cheap. Where somebody looks into a
block (a hook) or has edited it, the blocks run one by one, those with hooks inside as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..adversary.side_adapters import A_NAME
from ..replay import Replay, _Stop

Note = Callable[[Tensor, int], None]
"""(the input [B, T, D], number of blocks) of blocks that run"""


def make_hollow(replay: Replay, note: Note) -> None:
    """From now on; `note` is told of all that would run."""
    modules = [list(block.modules()) for block in replay.blocks]
    for block, inside in zip(replay.blocks, modules, strict=True):
        block.forward = _one(inside, block.forward, note)
    _take_at_once(replay, modules, note)


def is_watched(modules: Sequence[nn.Module]) -> bool:
    """Whether somebody looks into a block, given as its modules, itself first. An attack's adapters do not."""
    return any(
        (m._forward_hooks or m._forward_pre_hooks or m._backward_hooks) and A_NAME not in m._parameters
        for m in modules[1:]
    )


def _one(modules: Sequence[nn.Module], original: Any, note: Note) -> Any:
    returns_tuple: list[bool] = []

    def forward(h: Tensor, *args: Any, **kwargs: Any) -> Any:
        note(h, 1)
        if is_watched(modules):
            return original(h, *args, **kwargs)
        if not returns_tuple:
            with torch.no_grad():
                returns_tuple.append(isinstance(original(h, *args, **kwargs), tuple))
        result = _handed_on(h, modules)
        return (result,) if returns_tuple[0] else result

    return forward


def _take_at_once(replay: Replay, modules: Sequence[Sequence[nn.Module]], note: Note) -> None:
    """Have the first block of a pass do what all of them do."""
    one_by_one, hollow = replay._borrowed, [block.forward for block in replay.blocks]

    @contextmanager
    def borrowed(
        start: int, hidden: Tensor | None, stop: int | None, keep: set[int], out: dict[int, Tensor]
    ) -> Iterator[None]:
        end = replay.shape.n_blocks if stop is None else stop + 1
        blocks = replay.blocks[:end]
        plain = all(block.forward is own for block, own in zip(blocks, hollow, strict=False))
        if start == end or not replay._returns_tuple or not plain or any(map(is_watched, modules[start:end])):
            with one_by_one(start, hidden, stop, keep, out):
                yield
            return

        def everything(h: Tensor) -> Tensor:
            note(h, end - start)
            return _handed_on(h, (m for inside in modules[start:end] for m in inside))

        def forward(h: Tensor, *_: Any, **__: Any) -> Any:
            h = h if hidden is None else hidden
            again = replay.checkpoint_blocks and not replay.keeps_graph and torch.is_grad_enabled()
            result: Tensor = checkpoint(everything, h, use_reentrant=False) if again else everything(h)
            out.update(dict.fromkeys(keep, result))
            if stop is not None:
                raise _Stop
            return replay._skipped(start, result)(h)

        try:
            for index, block in enumerate(blocks):
                block.forward = replay._skipped(index, None)
            blocks[start].forward = forward
            yield
        finally:
            for block, own in zip(blocks, hollow, strict=False):
                block.forward = own

    replay._borrowed = borrowed  # type: ignore[method-assign]


def _handed_on(h: Tensor, modules: Iterable[nn.Module]) -> Tensor:
    wanting = (p for m in modules for p in m._parameters.values() if p is not None and p.requires_grad)
    result: Tensor = _HandOn.apply(h, *wanting)
    return result


class _HandOn(torch.autograd.Function):
    """Its first argument; the others get a gradient of zeros."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(h.new_ones(()))  # if nothing was saved nothing would be recomputed
        ctx.shapes = [p.shape for p in parameters]
        return h.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
        (one,) = ctx.saved_tensors
        zero = g.sum() * 0.0  # which has a gradient itself
        return g * one, *(zero.expand(shape) for shape in ctx.shapes)
