"""Partial forward passes of a model whose weights are sharded: only the blocks that run are gathered, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .batch import Batch
from .replay import Replay, forward_of
from .shards import ShardedWeights


class ShardedReplay(Replay):
    """`Replay` on `ShardedWeights`. Blocks that are skipped are not gathered; an exception leaves none gathered.

    `params` (the reference's values) are shards as well, and are gathered with the block they belong to.
    """

    def __init__(self, model: nn.Module, weights: ShardedWeights) -> None:
        super().__init__(model, weights.shape)
        self.weights = weights
        self.is_sharded = True
        self._originals: Mapping[str, Tensor] | None = None

    def open_head(
        self, rows: Tensor, params: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Mapping[str, Tensor] | None]:
        weights = self.weights
        rows = weights.enter(weights.head, rows)
        return rows, {**weights.tensors(weights.head, params), **weights.tensors(None, params)}

    def close_head(self, values: Tensor) -> Tensor:
        closed: Tensor = self.weights.leave(self.weights.head, values)
        return closed

    def head(self, last_hidden: Tensor, params: Mapping[str, Tensor] | None = None) -> Tensor:
        with self.weights.placed(params or {}):
            return super().head(last_hidden)

    @contextmanager
    def lent(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """They are whole on every process, and their gradients sums over the processes."""
        with self.weights.beside(self.model, parameters):
            yield

    def _call_base(self, batch: Batch, params: Mapping[str, Tensor] | None) -> Any:
        self._originals = params
        with self.weights.placed(self.weights.tensors(None, params)):
            return super()._call_base(batch, None)

    def _call_block(self, index: int, original: Any, h: Tensor, args: Any, kwargs: Any) -> Any:
        h = self.weights.enter(index, h)
        tensors = self.weights.tensors(index, self._originals)

        def run(*a: Any, **k: Any) -> Any:
            with self.weights.placed(tensors):
                return original(*a, **k)

        return self.weights.leave(index, super()._call_block(index, run, h, args, kwargs))

    @contextmanager
    def _borrowed(
        self, start: int, hidden: Tensor | None, stop: int | None, keep: set[int], out: dict[int, Tensor]
    ) -> Iterator[None]:
        embedding: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        original, weights = embedding.forward, self.weights

        def embed(ids: Tensor) -> Any:
            if hidden is not None:  # the embeddings are not used: block `start` is given its input
                return hidden.detach()
            weights.gather(weights.embed)
            with weights.placed(weights.tensors(weights.embed, self._originals)):
                found = original(ids)
            return weights.leave(weights.embed, found)

        try:
            with super()._borrowed(start, hidden, stop, keep, out), forward_of(embedding, embed):
                yield
        except BaseException:
            weights.release_all()
            raise
