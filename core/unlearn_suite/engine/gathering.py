"""Rows that several processes hold, put together for a loss that compares them; its gradient goes back to each."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional


def gathered(x: Tensor) -> Tensor:
    """Rows [n, ...] of every process -> [N, ...], in the order of the processes, the same on all.

    n may differ, and the second dimension too: it is filled up with zeros. The gradient of a process's rows is the sum
    of what all processes ask of them. Every process must call this at the same point.
    """
    result: Tensor = _GatheredRows.apply(x)
    return result


class _GatheredRows(torch.autograd.Function):
    """rows of one process -> rows of all; the gradient is summed over the processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        sizes = _sizes(x)
        rows, width = max(n for n, _ in sizes), max(w for _, w in sizes)
        own = _filled(x, rows, width)
        parts = [torch.empty_like(own) for _ in sizes]
        dist.all_gather(parts, own)
        ctx.size, ctx.start = x.shape, sum(n for n, _ in sizes[: dist.get_rank()])
        return torch.cat([part[:n] for part, (n, _) in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        total = grads[0].float().contiguous().clone()
        dist.all_reduce(total)
        own = total[ctx.start : ctx.start + ctx.size[0]]
        return own[:, : ctx.size[1]].to(grads[0].dtype) if len(ctx.size) > 1 else own.to(grads[0].dtype)


def _sizes(x: Tensor) -> list[tuple[int, int]]:
    """(rows, width) on each process; the width of vectors is 0."""
    own = torch.tensor([len(x), x.shape[1] if x.ndim > 1 else 0])
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    return [(int(n), int(width)) for n, width in found]


def _filled(x: Tensor, rows: int, width: int) -> Tensor:
    """Zeros added at the end of the first two dimensions."""
    more = [0, 0] * (x.ndim - 2) + ([0, width - x.shape[1]] if x.ndim > 1 else []) + [0, rows - len(x)]
    return functional.pad(x, more).contiguous()
