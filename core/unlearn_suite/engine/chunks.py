"""A role's examples in fixed groups, so that what is computed for one never depends on the batches of training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .batch import Batch, Encoded, collate

POSITIONS = 2048
"""padded positions of a chunk at most (one example may be longer)"""


@dataclass(frozen=True)
class Chunk:
    """Examples that go through the model together. `name` is a hash of all their token ids."""

    encoded: tuple[Encoded, ...]

    @cached_property
    def name(self) -> str:
        return hashlib.blake2b("".join(e.key for e in self.encoded).encode(), digest_size=12).hexdigest()

    @cached_property
    def spans(self) -> dict[str, slice]:
        """{example's key: its tokens among the chunk's}, real tokens only."""
        spans, start = {}, 0
        for e in self.encoded:
            spans[e.key] = slice(start, start + len(e.input_ids))
            start += len(e.input_ids)
        return spans

    @property
    def tokens(self) -> int:
        return sum(len(e.input_ids) for e in self.encoded)

    def batch(self) -> Batch:
        return collate(self.encoded, 0)

    def pack(self, x_btd: Tensor) -> Tensor:
        """[N, D] or [N]: the rows of real tokens of [B, T, D] or [B, T], one example after another, on the CPU."""
        return torch.cat([x[: len(e.input_ids)] for x, e in zip(x_btd.cpu(), self.encoded, strict=True)])

    def unpack(self, packed: Tensor) -> Tensor:
        """The padded [B, T, D] again; behind an example's end its last row is repeated."""
        return padded([packed[span] for span in self.spans.values()], repeat=True)


def cut(encoded: Iterable[Encoded]) -> list[Chunk]:
    """Chunks of examples of like length: a function of the set of token sequences alone."""
    unique = {e.key: e for e in encoded}
    chunks: list[Chunk] = []
    row: list[Encoded] = []
    for e in sorted(unique.values(), key=lambda e: (len(e.input_ids), e.input_ids)):
        if row and (len(row) + 1) * len(e.input_ids) > POSITIONS:
            chunks.append(Chunk(tuple(row)))
            row = []
        row.append(e)
    return [*chunks, Chunk(tuple(row))] if row else chunks


def padded(rows: list[Tensor], *, repeat: bool) -> Tensor:
    """[B, T, ...] of rows [n_i, ...]; behind a row's end stands its last entry (so that an objective that divides
    by a norm meets no zeros) or 0."""
    width = max(len(row) for row in rows)
    out = rows[0].new_zeros((len(rows), width, *rows[0].shape[1:]))
    for target, row in zip(out, rows, strict=True):
        target[: len(row)] = row
        if repeat:
            target[len(row) :] = row[-1]
    return out
