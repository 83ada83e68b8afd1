"""Simulated attacks of many steps, of which a few are taken and count for the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from torch import Tensor

from ..adversary import Adversary, Attack
from ..adversary.second_order import OuterLoss
from ..adversary.walk import InnerLoss
from ..context import StageContext
from .work import BlockWork

_TAKEN = 4
"""inner steps of an attack"""

_MANY = 16
"""inner steps of an attack that is whole, at most"""


class ShortAttacks(Adversary):
    """Of more than `_MANY` inner steps a first-order attack takes `_TAKEN`, evenly spread, and reads out after the last
    two: the optimizer makes its state in the first step, and gradients are added up from the second read-out on. Other
    attacks are whole: those of second order keep something of every step, and who walks by himself reads what he likes.
    """

    def __init__(self, ctx: StageContext, work: BlockWork) -> None:
        super().__init__(ctx.views, ctx.generator, ctx.services.say, ctx.total)
        self._work = work

    def attack(
        self, inner_loss: InnerLoss, outer_loss: OuterLoss, *, readouts: Mapping[int, float], **options: Any
    ) -> Attack:
        last = max(readouts)
        if last <= _MANY or options.get("order", "first") != "first":
            return super().attack(inner_loss, outer_loss, readouts=readouts, **options)
        places = [k * last // _TAKEN for k in range(_TAKEN + 1)]
        lengths = [b - a for a, b in pairwise(places)]
        few = dict(zip((_TAKEN, _TAKEN - 1), list(readouts.values()), strict=False))
        times = [len(readouts) - len(few) + 1, 1]

        def inner(k: int) -> Tensor:
            self._work.count_as(lengths[k])
            return inner_loss(places[k])

        def outer() -> Tensor:
            self._work.count_as(times.pop())
            return outer_loss()

        try:
            found = super().attack(inner, outer, readouts=few, **options)
        finally:
            self._work.count_as(1)
        loss = next(iter(found.outer_losses.values()))
        return replace(
            found,
            inner_losses=[found.inner_losses[-1]] * last,
            outer_losses=dict.fromkeys(readouts, loss),
        )
