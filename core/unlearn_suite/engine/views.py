"""The two views of a model, `policy` (being trained) and `reference` (frozen), on one copy of the weights.

Everything below the lowest trainable block is the same for both: it runs once per batch, without
autograd. Nothing above the deepest block asked for is run. The reference is the same model with the
original values of the trainable tensors put in its place for the pass. All of it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .batch import Batch, Over
from .losses import label_logprobs
from .replay import Replay
from .shape import ModelShape

PerToken = Callable[..., Tensor]
"""(logits [N, V], labels [N], and the other view's logits [N, V] if there is one) -> values [N]"""

_HEAD_ROWS = 1024
"""positions per LM-head call: bounds the [rows, V] float32 logits"""


@dataclass
class _Trail:
    """What one view has computed for one batch: block outputs, and the LM head's input."""

    outputs: dict[int, Tensor] = field(default_factory=dict)
    last_hidden: Tensor | None = None


class SharedPrefix:
    """Outputs of the blocks below the lowest trainable one, once per batch, without autograd."""

    def __init__(self, replay: Replay, lowest: int) -> None:
        self.replay = replay
        self.lowest = lowest
        self._cache: WeakKeyDictionary[Batch, dict[int, Tensor]] = WeakKeyDictionary()

    def outputs(self, batch: Batch, blocks: Iterable[int]) -> dict[int, Tensor]:
        """{block: [B, T, D]} for blocks below `lowest`."""
        known = self._cache.setdefault(batch, {})
        missing = sorted(set(blocks) - set(known))
        if missing:
            below = [b for b in known if b < missing[0]]
            start = max(below) + 1 if below else 0
            with torch.no_grad():
                known |= self.replay.blocks_to(
                    batch,
                    start=start,
                    hidden=known[start - 1] if start else None,
                    stop=missing[-1],
                    keep=missing,
                )
        return {block: known[block] for block in blocks}

    def input_of_lowest(self, batch: Batch) -> Tensor | None:
        """The input of block `lowest`; None when that is the embeddings."""
        return self.outputs(batch, [self.lowest - 1])[self.lowest - 1] if self.lowest > 0 else None

    def clear(self) -> None:
        self._cache.clear()


class View:
    """One way to read the model. All methods take a `Batch` and keep its shapes and padding."""

    def __init__(self, prefix: SharedPrefix, trainable: Mapping[str, Tensor], frozen: bool) -> None:
        self._prefix = prefix
        self._replay = prefix.replay
        self._trainable = trainable
        self._frozen = frozen
        self._values: Mapping[str, Tensor] | None = trainable if frozen else None
        self._trails: WeakKeyDictionary[Batch, tuple[object, _Trail]] = WeakKeyDictionary()

    def hidden(self, batch: Batch, blocks: Iterable[int]) -> dict[int, Tensor]:
        """{block: output [B, T, D]} (the residual stream after the block, HF `hidden_states[block + 1]`)."""
        wanted = list(dict.fromkeys(blocks))
        for block in wanted:
            self._replay.shape.check_block(block)
        low = [b for b in wanted if b < self._prefix.lowest]
        result = self._prefix.outputs(batch, low) if low else {}
        high = [b for b in wanted if b >= self._prefix.lowest]
        if high:
            trail = self._trail(batch)
            missing = [b for b in high if b not in trail.outputs]
            if missing:
                start, hidden = self._resume_point(batch, trail, min(missing))
                with self._grad():
                    trail.outputs |= self._replay.blocks_to(
                        batch,
                        start=start,
                        hidden=hidden,
                        stop=max(missing),
                        keep=missing,
                        params=self._params(),
                    )
            result |= {b: trail.outputs[b] for b in high}
        return {block: result[block] for block in wanted}

    def logits(self, batch: Batch) -> Tensor:
        """[B, T, V] in the model's dtype; position t predicts token t + 1."""
        last = self._last_hidden(batch)
        with self._grad():
            return self._replay.head(last, self._params())

    def token_logprobs(self, batch: Batch, over: Over = "content") -> Tensor:
        """[B, T] float32: log p(x_t | x_<t) where the mask `over` holds, 0 elsewhere (position 0 too)."""
        return self.per_token(batch, label_logprobs, over)

    def per_token(self, batch: Batch, of: PerToken, over: Over = "content", against: View | None = None) -> Tensor:
        """[B, T] float32: `of(logits, labels)` of the distributions that predict the tokens of the mask `over`.

        `of` is given logits [N, V] and labels [N] (token t and the logits before it stand together) and
        returns [N]; with `against`, the logits of that view come third. Elsewhere the result is 0. `of` sees
        some positions at a time and is computed again in the backward pass, so no [B, T, V] tensor exists;
        it must treat each position by itself. Gradients reach every view that has any.
        """
        views = (self,) if against is None else (self, against)
        mask = batch.mask(over)[:, 1:]
        labels = batch.input_ids[:, 1:][mask]
        rows = [view._last_hidden(batch)[:, :-1][mask] for view in views]
        pieces = [
            self._on_rows(of, y, views, h)
            for y, *h in zip(labels.split(_HEAD_ROWS), *(r.split(_HEAD_ROWS) for r in rows), strict=True)
        ]
        flat = torch.cat(pieces) if len(labels) else rows[0].new_zeros(0, dtype=torch.float32)
        result = torch.zeros(batch.input_ids.shape, dtype=torch.float32, device=flat.device)
        target = torch.zeros_like(batch.attention_mask, dtype=torch.bool)
        target[:, 1:] = mask
        return result.masked_scatter(target, flat)

    def unembed(self, vectors: Tensor) -> Tensor:
        """[N, V]: the LM head on vectors [N, D] of the residual stream, without the final norm (the logit lens)."""
        return self._head(vectors)

    def clear(self) -> None:
        """Forget what was computed (after a backward pass or a change of weights)."""
        self._trails.clear()

    def _on_rows(self, of: PerToken, labels: Tensor, views: Sequence[View], rows: Sequence[Tensor]) -> Tensor:
        """`of` on the logits of some rows [N, D] of each view."""

        def values(*hidden: Tensor) -> Tensor:
            first, *others = (view._head(h) for view, h in zip(views, hidden, strict=True))
            return of(first, labels, *others).float()

        again = not self._replay.keeps_graph and torch.is_grad_enabled()
        if again and not all(view._frozen for view in views):
            result: Tensor = checkpoint(values, *rows, use_reentrant=False)
            return result
        return values(*rows)

    def _head(self, rows: Tensor) -> Tensor:
        """Logits [N, V] of rows [N, D]."""
        with self._grad():
            return self._replay.head(rows[None], self._params())[0]

    def _last_hidden(self, batch: Batch) -> Tensor:
        trail = self._trail(batch)
        if trail.last_hidden is None:
            start, hidden = self._resume_point(batch, trail, self._replay.shape.n_blocks)
            if start == self._replay.shape.n_blocks:  # every block is done: only the norm is left
                start, hidden = self._resume_point(batch, trail, start - 1)
            with self._grad():
                trail.last_hidden, _ = self._replay.last_hidden(
                    batch, start=start, hidden=hidden, params=self._params()
                )
        return trail.last_hidden

    def _resume_point(self, batch: Batch, trail: _Trail, block: int) -> tuple[int, Tensor | None]:
        """The deepest known place below `block`: (first block to run, its input)."""
        below = [b for b in trail.outputs if b < block]
        if below:
            return max(below) + 1, trail.outputs[max(below)]
        return self._prefix.lowest, self._prefix.input_of_lowest(batch)

    def _trail(self, batch: Batch) -> _Trail:
        """This batch's trail, a fresh one if the weights or the autograd mode have changed since."""
        state: object = None
        if not self._frozen:
            state = (torch.is_grad_enabled(), tuple(p._version for p in self._trainable.values()))
        known = self._trails.get(batch)
        if known is None or known[0] != state:
            known = (state, _Trail())
            self._trails[batch] = known
        return known[1]

    def _params(self) -> Mapping[str, Tensor] | None:
        return self._values

    def _grad(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen)


class ModelViews:
    """Policy and reference over one model; owns the originals of the trainable tensors."""

    def __init__(self, model: nn.Module, shape: ModelShape, trainable: Iterable[str]) -> None:
        self.shape = shape
        names = list(trainable)
        parameters = dict(model.named_parameters())
        model.requires_grad_(False)
        self.trainable: dict[str, nn.Parameter] = {n: parameters[n] for n in names}
        for parameter in self.trainable.values():
            parameter.requires_grad_(True)
        self.original = {n: p.detach().clone() for n, p in self.trainable.items()}
        self.replay = Replay(model, shape)
        self._prefix = SharedPrefix(self.replay, _lowest(shape, names))
        self.policy = View(self._prefix, self.trainable, frozen=False)
        self.reference = View(self._prefix, self.original, frozen=True)

    def restore(self) -> None:
        """Put the original values of the trainable tensors back, bit for bit."""
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(self.original[name])
                parameter.grad = None
        self.clear()

    @contextmanager
    def also_changing(self, extra: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, the parameters `extra` may change as well; the reference keeps reading their `values`.

        What lies below all that may change is still shared by both views.
        """
        lowest = _lowest(self.shape, [*self.trainable, *extra])
        prefix = self._prefix if lowest == self._prefix.lowest else SharedPrefix(self.replay, lowest)
        before = [(view, view._prefix, view._trainable, view._values) for view in (self.policy, self.reference)]
        self.policy.clear()
        self.policy._prefix, self.policy._trainable = prefix, {**self.trainable, **extra}
        if extra.keys() - self.trainable.keys():
            self.reference.clear()
            self.reference._prefix = prefix
            self.reference._trainable = self.reference._values = {**values, **self.original}
        try:
            yield
        finally:
            for view, shared, trainable, read in before:
                if view._trainable is not trainable:
                    view.clear()
                view._prefix, view._trainable, view._values = shared, trainable, read

    @contextmanager
    def policy_at(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, the policy reads these tensors (which may be functions of others) in place of its parameters."""
        self.policy.clear()
        self.policy._values = values
        try:
            yield
        finally:
            self.policy._values = None
            self.policy.clear()

    def clear(self) -> None:
        """Forget all activations (between steps)."""
        self._prefix.clear()
        self.policy.clear()
        self.reference.clear()


def _lowest(shape: ModelShape, names: Sequence[str]) -> int:
    """The lowest block whose output these tensors can change; the last block when they all come after it."""
    blocks = [shape.block_of(name) for name in names]
    if any(b is None and not _is_above_blocks(n) for n, b in zip(names, blocks, strict=True)):
        return 0
    return min((b for b in blocks if b is not None), default=shape.n_blocks - 1)


def _is_above_blocks(name: str) -> bool:
    """Final norm and an untied LM head change nothing below the last block."""
    return any(part in name for part in ("lm_head", "embed_out", "final_layer_norm", "ln_f", "model.norm."))
