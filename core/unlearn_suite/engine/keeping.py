"""Whether a stage keeps what its base model computes, and of which roles: a function of the plan and the data alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .kept import Kept
from .shelf import Shelf

if TYPE_CHECKING:
    from .context import StageContext


def keeping(ctx: StageContext, shelf: Shelf, like: Tensor) -> Kept | None:
    """For the steps of a stage whose `setup` is done; None when nothing is kept.

    A role is kept when its examples come again: steps x batch > examples. With several processes nothing is: they
    run the model together, and each would need other chunks at other times.
    """
    train = ctx.train
    roles = [data for data in ctx.roles.values() if train.steps * train.batch > len(data)]
    if train.keep == "off" or ctx.processes.size > 1 or not roles:
        return None
    return Kept(
        roles,
        ctx.views.base_value,
        shelf,
        train.keep,
        width=ctx.shape.hidden_size,
        like=like,
        say=ctx.services.say,
        warn=ctx.services.warn,
    )
