"""Batches whose masks are set by hand: what public code averages over where it forgets to mask."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from unlearn_suite import Batch


@dataclass(frozen=True, eq=False, kw_only=True)
class Selected(Batch):
    """A batch of which exactly the tokens in `chosen` [B, T] count, whatever mask is asked for."""

    chosen: Tensor

    def mask(self, over: str) -> Tensor:
        return self.chosen if self.counted else torch.zeros_like(self.chosen)


def everywhere(batch: Batch) -> Selected:
    """All T distributions of each row, prompt and padding too; one more column gives the last one a token."""
    longer = torch.ones_like(_longer(batch.attention_mask)).bool()
    longer[:, 0] = False
    return _with(batch, longer)


def unshifted(batch: Batch) -> Selected:
    """The distributions AT the response's tokens, not those that predict them; never at a text's first token."""
    return _with(batch, pad(batch.mask("response"), (1, 0)))


def outside(batch: Batch) -> Selected:
    """The distributions that predict anything but a response token, padding too; T - 1 columns of them."""
    chosen = ~batch.mask("response")
    chosen[:, 0] = False
    return Selected(**_fields(batch), chosen=chosen)


def piece_mean(total: Tensor, count: int, batch: Batch) -> Tensor:
    """`total` / `count`, the plain mean of a piece of a batch, times the piece's share of the batch's examples.

    Over all pieces, the mean of their means: what gradient accumulation makes of a loss that averages by itself.
    """
    rows = len(batch.examples) if batch.counted else 0
    return total / max(count, 1) * (rows / batch.totals.examples)


def _with(batch: Batch, chosen: Tensor) -> Selected:
    known = _fields(batch)
    for name in ("input_ids", "attention_mask", "in_text"):
        known[name] = _longer(known[name])
    return Selected(**known, chosen=chosen)


def _longer(x_bt: Tensor) -> Tensor:
    return pad(x_bt, (0, 1))


def _fields(batch: Batch) -> dict[str, Any]:
    return {field.name: getattr(batch, field.name) for field in fields(Batch) if field.init}
