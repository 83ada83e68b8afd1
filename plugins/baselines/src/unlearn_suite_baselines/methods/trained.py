"""Which tensors an objective trains, from the words of `Trains`; and steps that are not the optimizer's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unlearn_suite import ModelShape, PlanError, StageContext

from ..cards.common import Trains


def chosen(shape: ModelShape, config: Trains, blocks: range | None = None) -> tuple[str, ...]:
    """Tensor names. `blocks` is the method's own range, where the options name none.

    Raises `PlanError` when a block does not exist or nothing is left.
    """
    if config.blocks is not None:
        first, last = (shape.check_block(b) for b in config.blocks)
        blocks = range(first, last + 1)
    inside = range(shape.n_blocks) if blocks is None else blocks
    kind = config.tensors
    if kind in ("mlp_out", "attn_out"):
        return shape.select(kind, inside)
    if kind in ("all", "linear", "mlp"):
        names = tuple(name for name in shape.tensors if _belongs(shape, name, kind, inside, everything=blocks is None))
    else:
        names = tuple(name for name in shape.match(kind) if blocks is None or shape.block_of(name) in inside)
    if not names:
        raise PlanError(f"no tensor is left to train: tensors {kind!r}, blocks {config.blocks}", code="no-such-tensor")
    return names


def _belongs(shape: ModelShape, name: str, kind: str, inside: range, *, everything: bool) -> bool:
    block = shape.block_of(name)
    if kind == "all":
        return everything or block in inside
    matrix = len(shape.tensors[name]) == 2 and name.endswith(".weight")
    return matrix and block in inside and (kind == "linear" or ".mlp." in name)


@torch.no_grad()
def step_by(ctx: StageContext, direction: Mapping[str, Tensor], rate: float) -> None:
    """theta <- theta - rate direction, on the optimizer's float32 masters, so that bf16 weights lose no small step."""
    finest = ctx.optimizer.finest()
    for name, d in direction.items():
        finest[name].sub_(d, alpha=rate)
        if finest[name] is not ctx.trainable[name]:
            ctx.trainable[name].copy_(finest[name])
