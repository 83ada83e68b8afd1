"""Run any part of a model by letting the model run itself.

The model's own forward is called, with blocks below `start` replaced by "hand on what is known" and an
exception after block `stop`. Masks, rotary tables and per-layer arguments are therefore always the
model's own, on every architecture, and a part gives the same bits as the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from ..errors import PrerequisiteError
from .batch import Batch
from .shape import ModelShape


class _Stop(Exception):
    """Raised after the last block that is needed."""


class Replay:
    """Partial forward passes of one causal LM. Not thread-safe: it borrows the blocks' `forward`."""

    def __init__(self, model: nn.Module, shape: ModelShape) -> None:
        self.model = model
        self.shape = shape
        base_path = shape.blocks_path.rpartition(".")[0]
        self.base_path = base_path
        self.base: nn.Module = model.get_submodule(base_path)
        self.blocks: list[nn.Module] = list(model.get_submodule(shape.blocks_path).children())
        self.checkpoint_blocks = False
        self.keeps_graph = False
        """inside `twice_differentiable`: nothing may be recomputed, as that loses second derivatives"""
        self.compile_blocks = False
        """in passes with autograd; what is computed without it has the same bits either way"""
        self._compiled: dict[int, Any] = {}
        self.is_sharded = False
        """its weights are spread over several processes"""
        self._returns_tuple: dict[int, int] = {}
        self.block_calls = 0

    def blocks_to(
        self,
        batch: Batch,
        *,
        start: int = 0,
        hidden: Tensor | None = None,
        stop: int,
        keep: Collection[int] = (),
        params: Mapping[str, Tensor] | None = None,
    ) -> dict[int, Tensor]:
        """Outputs [B, T, D] of the blocks in `keep` and of `stop`, computed from block `start` on.

        `hidden` is the input of block `start` (None: from the embeddings, `start` = 0). `params`
        replaces parameters by name for this pass.
        """
        out: dict[int, Tensor] = {}
        self._learn_return(start)
        with suppress(_Stop), self._borrowed(start, hidden, stop, {*keep, stop}, out):
            self._call_base(batch, params)
        return out

    def last_hidden(
        self,
        batch: Batch,
        *,
        start: int = 0,
        hidden: Tensor | None = None,
        keep: Collection[int] = (),
        params: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The LM head's input [B, T, D] (after the final norm), and the outputs of blocks in `keep`.

        `start` may be the number of blocks: then `hidden` is the last one's output and no block runs.
        """
        out: dict[int, Tensor] = {}
        self._learn_return(start)
        with self._borrowed(start, hidden, None, set(keep), out):
            result = self._call_base(batch, params)
        return result.last_hidden_state, out

    def open_head(
        self, rows: Tensor, params: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Mapping[str, Tensor] | None]:
        """Once before any number of `head` calls of one pass: the rows and parameters to give them."""
        return rows, params

    def close_head(self, values: Tensor) -> Tensor:
        """Once after them, with all that was computed from their logits."""
        return values

    def head(self, last_hidden: Tensor, params: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits [B, T, V] from `last_hidden`, with whatever scaling or capping the model does."""
        from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

        def known(*_: Any, **__: Any) -> Any:
            return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=last_hidden)

        ids = torch.zeros(last_hidden.shape[:2], dtype=torch.long, device=last_hidden.device)
        with forward_of(self.base, known):
            kwargs = {"input_ids": ids, "use_cache": False}
            if params:
                return functional_call(self.model, dict(params), (), kwargs).logits
            return self.model(**kwargs).logits

    @contextmanager
    def lent(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """Inside, these parameters have been added to modules of the model, under these names."""
        yield

    def trains_head(self) -> bool:
        """Whether a tensor that `head` reads is trained (a tied embedding is one)."""
        outside = (child for child in self.model.children() if all(m is not self.base for m in child.modules()))
        return any(p.requires_grad for child in outside for p in child.parameters())

    @contextmanager
    def twice_differentiable(self) -> Iterator[None]:
        """Inside, gradients have gradients: attention as plain matrix products, nothing recomputed.

        Raises `PrerequisiteError` for an attention implementation that cannot be switched.
        """
        kind = getattr(self.model.config, "_attn_implementation", "eager")
        if kind not in ("eager", "sdpa"):
            raise PrerequisiteError(
                f"exact second-order gradients need eager or sdpa attention, the model runs {kind}",
                code="attention",
                hint="use finite differences or the first order instead",
            )
        before, self.keeps_graph = self.keeps_graph, True
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            self.keeps_graph = before

    def _call_base(self, batch: Batch, params: Mapping[str, Tensor] | None) -> Any:
        kwargs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
        if not params:
            return self.base(**kwargs)
        prefix = f"{self.base_path}." if self.base_path else ""
        inside = {n.removeprefix(prefix): t for n, t in params.items() if n.startswith(prefix)}
        return functional_call(self.base, inside, (), kwargs)

    @contextmanager
    def _borrowed(
        self, start: int, hidden: Tensor | None, stop: int | None, keep: set[int], out: dict[int, Tensor]
    ) -> Iterator[None]:
        last = self.shape.n_blocks - 1 if stop is None else stop
        touched = self.blocks[: last + 1]
        originals = [block.forward for block in touched]
        lent = [block.__dict__.get("forward") for block in touched]  # an edited block's, see edits.py
        try:
            for index, block in enumerate(touched):
                if index < start:
                    block.forward = self._skipped(index, hidden if index == start - 1 else None)
                else:
                    block.forward = self._run(index, originals[index], stop, keep, out)
            yield
        finally:
            for block, forward in zip(touched, lent, strict=True):
                del block.forward
                if forward is not None:
                    block.forward = forward

    def _skipped(self, index: int, output: Tensor | None) -> Any:
        """A forward that returns `output`, or its input, in the form that the block itself does."""
        size = self._returns_tuple.get(index, self._returns_tuple.get(0, 0))

        def forward(h: Tensor, *_: Any, **__: Any) -> Any:
            h = h if output is None else output
            return (h, *([None] * (size - 1))) if size else h

        return forward

    def _learn_return(self, start: int) -> None:
        """Before blocks are skipped that never ran: see on two tokens whether block 0 returns a tuple."""
        if start == 0 or self._returns_tuple:
            return
        ids = torch.zeros((1, 2), dtype=torch.long, device=next(self.base.parameters()).device)
        calls = self.block_calls
        with torch.no_grad(), suppress(_Stop), self._borrowed(0, None, 0, set(), {}):
            self.base(input_ids=ids, use_cache=False)
        self.block_calls = calls

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Inside, no block runs as compiled code: for the time that blocks are other ones than those compiled."""
        before, self.compile_blocks = self.compile_blocks, False
        try:
            yield
        finally:
            self.compile_blocks = before

    def _compiles(self) -> bool:
        """Not where operators are watched (FLOPs are counted): compiled code hides them."""
        watched = bool(torch.utils._python_dispatch._get_current_dispatch_mode_stack())
        return self.compile_blocks and not self.keeps_graph and torch.is_grad_enabled() and not watched

    def _compiled_block(self, index: int, original: Any) -> Any:
        """The block's own forward, compiled once; sizes are not fixed, so that batches of any length fit."""
        if index not in self._compiled:
            self._compiled[index] = torch.compile(original, dynamic=True)
        return self._compiled[index]

    def _run(self, index: int, original: Any, stop: int | None, keep: set[int], out: dict[int, Tensor]) -> Any:
        def forward(h: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.block_calls += 1
            result = self._call_block(index, original, h, args, kwargs)
            self._returns_tuple[index] = len(result) if isinstance(result, tuple) else 0
            if index in keep:
                out[index] = result[0] if isinstance(result, tuple) else result
            if index == stop:
                raise _Stop
            return result

        return forward

    def _call_block(self, index: int, original: Any, h: Tensor, args: Any, kwargs: Any) -> Any:
        run = self._compiled_block(index, original) if self._compiles() else original
        if self.checkpoint_blocks and not self.keeps_graph and torch.is_grad_enabled():
            return checkpoint(run, h, *args, use_reentrant=False, **kwargs)
        return run(h, *args, **kwargs)


@contextmanager
def forward_of(module: nn.Module, forward: Any) -> Iterator[None]:
    """Another `forward` for a module, for a while."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
