"""How much each block counts: lambda_l, which sum to 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def uniform(blocks: Sequence[int]) -> dict[int, float]:
    return {block: 1.0 / len(blocks) for block in blocks}


def proportional(amounts: Mapping[int, float]) -> dict[int, float]:
    """In proportion to what is positive of the amounts; uniform when nothing is."""
    positive = {block: max(amount, 0.0) for block, amount in amounts.items()}
    total = sum(positive.values())
    return {b: a / total for b, a in positive.items()} if total > 0 else uniform(list(amounts))


class Learned:
    """softmax(alpha), alpha raised by each block's forget loss: the block that lags gets more weight.

    This is the exponentiated gradient ascent of group DRO (arXiv:1911.08731). Descending on alpha instead would
    put all weight on the block that is done already.
    """

    def __init__(self, blocks: Sequence[int], rate: float) -> None:
        self.rate = rate
        self.alpha = dict.fromkeys(blocks, 0.0)

    @property
    def weights(self) -> dict[int, float]:
        top = max(self.alpha.values())
        raised = {block: math.exp(a - top) for block, a in self.alpha.items()}
        total = sum(raised.values())
        return {block: value / total for block, value in raised.items()}

    def update(self, losses: Mapping[int, float]) -> None:
        for block, value in losses.items():
            self.alpha[block] += self.rate * value
