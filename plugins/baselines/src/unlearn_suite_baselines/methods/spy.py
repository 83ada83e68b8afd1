"""What goes into and comes out of single linear layers during a pass of a view."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_suite import Batch, Example, StageContext, View

Seen = Callable[[str, Tensor, Tensor], None]
"""(weight name, input [B, T, in], output [B, T, out])"""


def layer(ctx: StageContext, weight: str) -> nn.Module:
    """The layer a weight belongs to."""
    return ctx.views.replay.model.get_submodule(weight.rpartition(".")[0])


def is_transposed(ctx: StageContext, weight: str) -> bool:
    """Whether the weight is [in, out] (GPT-2's Conv1D) instead of [out, in]."""
    return type(layer(ctx, weight)).__name__ == "Conv1D"


@contextmanager
def watching(ctx: StageContext, weights: Sequence[str], seen: Seen) -> Iterator[None]:
    """Inside, `seen` is called whenever one of the layers runs."""

    def hook_of(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen(name, inputs[0], output)

        return hook

    handles = [layer(ctx, name).register_forward_hook(hook_of(name)) for name in weights]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def outputs(ctx: StageContext, view: View, batch: Batch, weights: Sequence[str], last: int) -> dict[str, Tensor]:
    """{weight: its layer's output [B, T, out]} of one pass of `view` up to block `last`."""
    found: dict[str, Tensor] = {}
    with watching(ctx, weights, lambda name, _, out: found.__setitem__(name, out)):
        h = view.hidden(replace(batch), [last])[last]  # a twin: what is cached for the batch itself would not run again
    if ctx.processes.size == 1:
        return found
    # weights are there for a gradient that comes in by their block's end
    return {name: out + 0.0 * h.sum() for name, out in found.items()}


@torch.no_grad()
def pooled(
    ctx: StageContext, examples: Sequence[Example], weights: Sequence[str], side: str, size: int
) -> Mapping[str, Tensor]:
    """{weight: [N, D]}: the base model's inputs or outputs of layers, averaged over each example's response."""
    rows: dict[str, list[Tensor]] = {name: [] for name in weights}
    last = ctx.shape.n_blocks - 1
    for batch in ctx.encode("pooled", examples).chunks(size):
        moved = replace(batch.to(ctx.device))  # a twin: values that are kept for the batch itself would not run again
        mask = moved.mask("response")[..., None]

        def seen(name: str, given: Tensor, out: Tensor, mask: Tensor = mask) -> None:
            x = (given if side == "input" else out).float().masked_fill(~mask, 0.0)
            rows[name].append((x.sum(1) / mask.sum(1).clamp_min(1)).cpu())

        ctx.views.clear()
        with watching(ctx, weights, seen):
            ctx.reference.hidden(moved, [last])
    ctx.views.clear()
    return {name: torch.cat(parts) for name, parts in rows.items()}


def some(ctx: StageContext, role: str, count: int) -> list[Any]:
    """The first `count` examples of a role that were encoded."""
    return [e.example for e in ctx.roles[role].encoded[:count]]
