"""What has been computed for a batch in this step: by both views below what is trained, by one view above it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .batch import Batch
from .kept import Kept, What
from .replay import Replay


@dataclass
class Trail:
    """What one view has computed for one batch: the outputs of all blocks that ran, and the LM head's input."""

    outputs: dict[int, Tensor] = field(default_factory=dict)
    last_hidden: Tensor | None = None

    def take(self, other: Trail) -> None:
        """What `other` knows, without its graph."""
        self.outputs |= {b: h.detach() for b, h in other.outputs.items() if b not in self.outputs}
        if self.last_hidden is None and other.last_hidden is not None:
            self.last_hidden = other.last_hidden.detach()


@dataclass
class Trails:
    """A batch's trails, with autograd and without, for one state of the weights."""

    versions: object
    live: Trail = field(default_factory=Trail)
    still: Trail = field(default_factory=Trail)


class SharedPrefix:
    """Outputs of the blocks below the lowest trainable one, once per batch, without autograd."""

    def __init__(self, replay: Replay, lowest: int, kept: Kept | None = None) -> None:
        self.replay = replay
        self.lowest = lowest
        self.kept = kept
        self._cache: WeakKeyDictionary[Batch, dict[int, Tensor]] = WeakKeyDictionary()

    def outputs(self, batch: Batch, blocks: Iterable[int]) -> dict[int, Tensor]:
        """{block: [B, T, D]} for blocks below `lowest`."""
        wanted = sorted(set(blocks))
        known = self._cache.setdefault(batch, {})
        for block in wanted:
            if block not in known and (value := self.kept_value(batch, block)) is not None:
                known[block] = value
        missing = [b for b in wanted if b not in known]
        if missing:
            below = max((b for b in known if b < missing[0]), default=-1)
            with torch.no_grad():
                found = self.replay.blocks_to(
                    batch,
                    start=below + 1,
                    hidden=known.get(below),
                    stop=missing[-1],
                    keep=range(below + 1, missing[-1]),
                )
            known |= {b: h for b, h in found.items() if b not in known}
        return {block: known[block] for block in wanted}

    def input_of_lowest(self, batch: Batch) -> Tensor | None:
        """The input of block `lowest`; None when that is the embeddings."""
        return self.outputs(batch, [self.lowest - 1])[self.lowest - 1] if self.lowest > 0 else None

    def kept_value(self, batch: Batch, what: What) -> Tensor | None:
        """What the base model computes for the batch, if such values are kept."""
        return self.kept.get(batch, what) if self.kept else None

    def clear(self) -> None:
        self._cache.clear()
