"""What a probe sees: pooled block outputs of labelled texts, and single tokens for the scale of a direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unlearn_suite import Batch, Example, StageContext, View

from .corpus import Corpus
from .probes import Array

BATCH = 16


@dataclass(frozen=True)
class Features:
    """Of one block: rows [N, D] and labels [N] (1 = toxic), for fitting and for validation.

    `groups` names each fitting row's group ("" for benign rows); `test`: rows and labels nothing is chosen by.
    """

    x: Array
    y: Array
    x_val: Array
    y_val: Array
    groups: tuple[str, ...] = ()
    test: tuple[Array, Array] | None = None

    @property
    def judged(self) -> tuple[Array, Array]:
        """Rows and labels that a probe is judged on: of the test texts, or of validation where there are none."""
        return self.test or (self.x_val, self.y_val)


class Reader:
    """Reads texts through a view at some blocks. `pool` is the option of that name."""

    def __init__(self, ctx: StageContext, blocks: Sequence[int], pool: str) -> None:
        self.ctx = ctx
        self.blocks = list(blocks)
        self._pool = _POOLS[pool]

    def features(self, view: View, corpus: Corpus) -> dict[int, Features]:
        """{block: features} of a corpus, benign rows first."""
        parts = [corpus.benign, corpus.toxic, corpus.benign_val, corpus.toxic_val]
        if corpus.toxic_test:
            parts += [corpus.benign_test, corpus.toxic_test]
        read = [self._read(view, part, self._pool) for part in parts]
        groups = ("",) * len(read[0][1]) + tuple(e.group for e in read[1][1])
        result = {}
        for block in self.blocks:
            rows = [found[block].double().numpy() for found, _ in read]
            x, y = _stack(rows[:2])
            x_val, y_val = _stack(rows[2:4])
            result[block] = Features(x, y, x_val, y_val, groups, _stack(rows[4:]) if rows[4:] else None)
        return result

    def tokens(self, view: View, examples: Sequence[Example]) -> dict[int, Tensor]:
        """{block: [tokens, D]} float32, every response token."""
        return self._read(view, examples, _every_token)[0]

    def _read(self, view: View, examples: Sequence[Example], pool: Pool) -> tuple[dict[int, Tensor], list[Example]]:
        """{block: [N, D]} float32 on the CPU, and the example each row is of."""
        rows: dict[int, list[Tensor]] = {b: [] for b in self.blocks}
        owners: list[Example] = []
        with torch.no_grad():
            for batch in self.ctx.encode("probe", examples).chunks(BATCH):
                moved = batch.to(self.ctx.device)
                for block, h in view.hidden(moved, self.blocks).items():
                    pooled, owner = pool(h, moved)
                    rows[block].append(pooled.cpu())
                owners += [moved.examples[i] for i in owner]
                self.ctx.views.clear()
        return {b: torch.cat(r) for b, r in rows.items()}, owners


Pool = Callable[[Tensor, Batch], tuple[Tensor, list[int]]]
"""(h [B, T, D], batch) -> (rows [N, D] float32, the example of each row)"""


def _every_token(h: Tensor, batch: Batch) -> tuple[Tensor, list[int]]:
    mask = batch.mask("response")
    return h[mask].float(), mask.nonzero()[:, 0].tolist()


def _last_token(h: Tensor, batch: Batch) -> tuple[Tensor, list[int]]:
    rows = torch.arange(len(h), device=h.device)
    last = batch.attention_mask.sum(1) - 1
    return h[rows, last].float(), rows.tolist()


def _mean(h: Tensor, mask: Tensor) -> tuple[Tensor, list[int]]:
    total = h.float().masked_fill(~mask[..., None], 0.0).sum(1)
    return total / mask.sum(1, keepdim=True).clamp_min(1), list(range(len(h)))


_POOLS: dict[str, Pool] = {
    "mean-response": lambda h, batch: _mean(h, batch.mask("response")),
    "mean-all": lambda h, batch: _mean(h, batch.mask("content")),
    "last": _last_token,
    "token": _every_token,
}


def _stack(classes: Sequence[Array]) -> tuple[Array, Array]:
    """(rows [N, D], labels [N]) of benign then toxic."""
    y = np.concatenate([np.full(len(part), float(label)) for label, part in enumerate(classes)])
    return np.concatenate(list(classes)), y
