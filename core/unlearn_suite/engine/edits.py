"""The model with the outputs of some blocks replaced while it runs: directional ablation at inference, say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .batch import Batch
from .passed import SharedPrefix
from .replay import Replay
from .views import View

Edit = Callable[[Tensor], Tensor]
"""a block's output [B, T, D] -> what stands in its place, of the same shape and dtype"""


class EditedView(View):
    """Reads the model as it is now, each block's output passed through its edit first.

    All of `View`'s methods work. The reference is not edited, so `ctx.reference.per_token(batch, of, against=view)`
    compares the edited model with the one the stage began with. What an edit itself depends on must not change while
    the view has outputs of it: call `clear` then.
    """

    def __init__(self, replay: Replay, trainable: Mapping[str, Tensor], edits: Mapping[int, Edit]) -> None:
        super().__init__(SharedPrefix(replay, 0), trainable, frozen=False)
        for block in edits:
            replay.shape.check_block(block)
        self._edits = dict(edits)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Edit the model itself for the time of a `with` block, for whoever runs it: `ctx.services.sample` then samples
        from the edited model. Does not nest with itself."""
        blocks = {index: self._replay.blocks[index] for index in self._edits}
        for index, block in blocks.items():
            block.forward = _edited(block, self._edits[index])
        try:
            with self._replay.eager():
                yield
        finally:
            for block in blocks.values():
                del block.forward

    def hidden(self, batch: Batch, blocks: Iterable[int]) -> dict[int, Tensor]:
        with self.applied():
            return super().hidden(batch, blocks)

    def last_hidden(self, batch: Batch) -> Tensor:
        with self.applied():
            return super().last_hidden(batch)


def _edited(block: nn.Module, edit: Edit) -> Callable[..., Any]:
    original = block.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if isinstance(result, tuple):
            return (edit(result[0]), *result[1:])
        return edit(result)

    return forward
