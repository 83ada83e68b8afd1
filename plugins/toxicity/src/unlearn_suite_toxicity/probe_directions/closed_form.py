"""P6: the direction taken out of the matrices that write to the residual stream. No training.

With what is read the same as what is edited this is W <- (I - a v v^T) W (directional ablation as a change of
weights, arXiv:2406.11717; GLOSS, arXiv:2505.17078).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlearn_suite import ModelShape, StageContext, TrainingError

from .directions import Axis, Direction


def apply(ctx: StageContext, directions: dict[int, Direction], strength: float) -> None:
    """Edit the MLP and attention output matrices of each direction's own block, in place."""
    transposed = writes_columns(ctx.shape)
    with torch.no_grad():
        for block, direction in directions.items():
            for kind in ("mlp_out", "attn_out"):
                weight = ctx.trainable[ctx.shape.select(kind, [block])[0]]
                edited = without(ctx.whole(weight).float(), direction.axes, strength, transposed=transposed)
                weight.copy_(ctx.placed(edited, weight))
    ctx.views.clear()


def without(weight: Tensor, axes: Sequence[Axis], strength: float, *, transposed: bool) -> Tensor:
    """(I - a e r^T / (r.e)) W for each axis; W is [D, in], or [in, D] where `transposed`."""
    rows = weight.T if transposed else weight
    for axis in axes:
        rows = rows - strength / (axis.read @ axis.edit) * torch.outer(axis.edit, axis.read @ rows)
    return rows.T if transposed else rows


def writes_columns(shape: ModelShape) -> bool:
    """Whether output matrices are stored [in, D], as GPT-2's are (a square MLP would leave it open: [D, in])."""
    rows, columns = shape.tensors[shape.select("mlp_out", [0])[0]]
    return rows != shape.hidden_size and columns == shape.hidden_size


def check(ctx: StageContext) -> None:
    """Raises `TrainingError` where the stage asks for training, or the model scales what its matrices have written."""
    if ctx.train.steps or ctx.train.lora is not None:
        raise TrainingError(
            "`loss: closed-form` edits the weights once and does not train",
            code="closed-form",
            hint="write `steps: 0` beside `use`, and no `lora`",
        )
    if ctx.shape.post_norm:
        raise TrainingError(
            "this model's blocks norm and scale what their output matrices write, so that a direction taken out of the "
            "matrices would come back",
            code="post-norm",
            hint="take another loss than `closed-form`",
        )
