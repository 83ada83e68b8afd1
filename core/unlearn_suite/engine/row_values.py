"""One value per position from rows of hidden states, and its gradient, at the cost of one pass through the LM head.

The value of a position depends on its own row alone, so its gradient is the incoming number times one vector.
That vector is found in the forward pass, while the logits are there; the backward pass needs no logits again.
(Liger-Kernel does the same for the mean cross-entropy, arXiv:2410.10989.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Values = Callable[..., Tensor]
"""rows [N, D], one or more -> [N] float32, position by position"""


def row_values(values: Values, rows: Sequence[Tensor]) -> Tensor:
    """`values(*rows)` [N]. The gradient reaches the rows and nothing else that `values` reads."""
    if torch.is_grad_enabled() and any(r.requires_grad for r in rows):
        result: Tensor = _RowValues.apply(values, *rows)
        return result
    return values(*rows)


class _RowValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Values, *rows: Tensor) -> Tensor:
        needed = ctx.needs_input_grad[1:]
        with torch.enable_grad():
            leaves = [row.detach().requires_grad_(need) for row, need in zip(rows, needed, strict=True)]
            out = values(*leaves)
            total = out.sum()
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        slopes = torch.autograd.grad(total, wanted, materialize_grads=True) if total.requires_grad else ()
        ctx.values, ctx.n_rows = values, len(rows)
        ctx.save_for_backward(*rows, *slopes)
        return out.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        rows, slopes = ctx.saved_tensors[: ctx.n_rows], ctx.saved_tensors[ctx.n_rows :]
        needed = ctx.needs_input_grad[1:]
        if not slopes:
            found: Sequence[Tensor] = ()
        elif torch.is_grad_enabled():  # a gradient of this gradient may follow: it needs the logits
            wanted = [row for row, need in zip(rows, needed, strict=True) if need]
            found = torch.autograd.grad(ctx.values(*rows), wanted, grad, create_graph=True, materialize_grads=True)
        else:
            found = [(grad[:, None] * slope).to(slope.dtype) for slope in slopes]
        each = iter(found)
        return (None, *(next(each, None) if need else None for need in needed))
