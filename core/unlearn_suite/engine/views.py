"""The two views of a model, `policy` (being trained) and `reference` (frozen), on one copy of the weights.

Everything below the lowest trainable block is the same for both: it runs once per batch, without
autograd, or comes from what is kept (`kept.py`). No block runs twice for a batch, none above the deepest
that is asked for. The reference is the same model with the original values of the trainable tensors put in
its place for the pass. All of it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .accounting import FlopCount
from .batch import Batch, Over
from .kept import Kept, What
from .losses import label_logprobs
from .passed import SharedPrefix, Trail, Trails
from .replay import Replay
from .row_values import row_values
from .shape import ModelShape

PerToken = Callable[..., Tensor]
"""(logits [N, V], labels [N], the other view's logits [N, V] if there is one, what was given) -> values [N]"""

_HEAD_ROWS = 1024
"""positions per LM-head call: bounds the [rows, V] float32 logits"""


class View:
    """One way to read the model. Results have the shape of the `Batch`, padding included: hidden states and logits at
    padding mean nothing.

    With autograd, and without, nothing is computed twice for a batch until the weights change or `clear` is called: ask
    in any order. Do not change a result in place.
    """

    def __init__(self, prefix: SharedPrefix, trainable: Mapping[str, Tensor], frozen: bool) -> None:
        self._prefix = prefix
        self._replay = prefix.replay
        self._trainable = trainable
        self._frozen = frozen
        self._values: Mapping[str, Tensor] | None = trainable if frozen else None
        self._trails: WeakKeyDictionary[Batch, Trails] = WeakKeyDictionary()
        self._given: WeakKeyDictionary[Batch, dict[int, Tensor]] = WeakKeyDictionary()

    def hidden(self, batch: Batch, blocks: Iterable[int]) -> dict[int, Tensor]:
        """{block: output [B, T, D]} in the model's dtype: the residual stream after the block.

        That is `hidden_states[block + 1]` of transformers (which puts the final norm on the last one; this does not).
        Outputs below the lowest trained block have no gradient. Raises `PlanError` (`no-such-block`).
        """
        wanted = list(dict.fromkeys(blocks))
        for block in wanted:
            self._replay.shape.check_block(block)
        if not batch.examples:
            return {block: self._nothing(batch, self._replay.shape.hidden_size) for block in wanted}
        shared = min([self._prefix.lowest, *self._given.get(batch, {})])
        low = [b for b in wanted if b < shared]
        result = self._prefix.outputs(batch, low) if low else {}
        if high := [b for b in wanted if b >= shared]:
            trail = self._trail(batch)
            self._reach(batch, trail, high)
            result |= {b: trail.outputs[b] for b in high}
        return {block: result[block] for block in wanted}

    def with_hidden(self, batch: Batch, block: int, hidden: Tensor) -> Batch:
        """A twin of `batch` for which this view takes `hidden` [B, T, D] as the output of `block`, and goes on from it.

        For latent perturbations, and (with the last block) for the logits of any hidden state. Gradients reach
        `hidden`, through the policy only. Raises `PlanError` (`no-such-block`).
        """
        self._replay.shape.check_block(block)
        twin = replace(batch)
        self._given[twin] = {block: hidden}
        return twin

    def logits(self, batch: Batch) -> Tensor:
        """[B, T, V] in the model's dtype; position t predicts token t + 1. `per_token` needs less memory."""
        if not batch.examples:
            return self._nothing(batch, self._replay.shape.vocab_size)
        with self._grad():
            last, params = self._replay.open_head(self.last_hidden(batch), self._params())
            return self._replay.close_head(self._replay.head(last, params))

    def token_logprobs(self, batch: Batch, over: Over = "content") -> Tensor:
        """[B, T] float32, nats: log p(x_t | x_<t) where the mask `over` holds, 0 elsewhere (position 0 too)."""
        if self._frozen and (known := self._prefix.kept_value(batch, "logprobs")) is not None:
            return known.masked_fill(~batch.mask(over), 0.0)
        return self.per_token(batch, label_logprobs, over)

    def per_token(
        self,
        batch: Batch,
        of: PerToken,
        over: Over = "content",
        against: View | None = None,
        given: Sequence[Tensor] = (),
    ) -> Tensor:
        """[B, T] float32: `of(logits, labels)` of the distributions that predict the tokens of the mask `over`.

        `of` is given logits [N, V] and labels [N] (token t and the logits before it stand together) and
        returns [N]; with `against`, the logits of that view come third. Tensors [B, T, ...] in `given` come last,
        each as its rows [N, ...] at the same tokens, as constants. Elsewhere the result is 0. `of` sees
        some positions at a time (N may be 0), so no [B, T, V] tensor exists; it must treat each position by itself
        and read no other tensor that is trained. Gradients reach every view that has any.
        """
        views = (self,) if against is None else (self, against)
        mask = batch.mask(over)[:, 1:]
        labels = batch.input_ids[:, 1:][mask]
        last = [view.last_hidden(batch)[:, :-1][mask] for view in views]
        rows, heads = zip(*(view._open_head(h) for view, h in zip(views, last, strict=True)), strict=True)
        constants = [labels, *(g[:, 1:][mask].detach() for g in given)]
        cut = [[tensor.split(_HEAD_ROWS) for tensor in tensors] for tensors in (constants, rows)]
        pieces = [
            self._on_rows(of, known, views, heads, h)
            for known, h in zip(zip(*cut[0], strict=True), zip(*cut[1], strict=True), strict=True)
        ]
        flat = self._replay.close_head(torch.cat(pieces))
        result = torch.zeros(batch.input_ids.shape, dtype=torch.float32, device=flat.device)
        target = torch.zeros_like(batch.attention_mask, dtype=torch.bool)
        target[:, 1:] = mask
        return result.masked_scatter(target, flat)

    def unembed(self, vectors: Tensor) -> Tensor:
        """[N, V]: the LM head on vectors [N, D] of the residual stream, without the final norm (the logit lens).

        Vectors and result have the model's dtype. Needs `Requirements.head`, or `logits`.
        """
        rows, params = self._open_head(vectors)
        return self._replay.close_head(self._head(rows, params))

    def clear(self) -> None:
        """Forget what was computed, which frees its memory. The engine does so after each backward pass and update."""
        self._trails.clear()

    def _open_head(self, rows: Tensor) -> tuple[Tensor, Mapping[str, Tensor] | None]:
        with self._grad():
            return self._replay.open_head(rows, self._params())

    def _on_rows(
        self,
        of: PerToken,
        known: Sequence[Tensor],
        views: Sequence[View],
        heads: Sequence[Mapping[str, Tensor] | None],
        rows: Sequence[Tensor],
    ) -> Tensor:
        """`of` on the logits of some rows [N, D] of each view; `known`: labels, then what was given."""
        labels, *given = known

        def values(*hidden: Tensor) -> Tensor:
            first, *others = (view._head(h, head) for view, h, head in zip(views, hidden, heads, strict=True))
            return of(first, labels, *others, *given).float()

        if self._replay.keeps_graph or not torch.is_grad_enabled():
            return values(*rows)
        if any(view._trains_head() for view in views):
            result: Tensor = checkpoint(values, *rows, use_reentrant=False)
            return result
        return row_values(values, rows)

    def _trains_head(self) -> bool:
        """Whether gradients must reach the LM head's own tensors."""
        return not self._frozen and (self._values is not None or self._replay.trains_head())

    def _head(self, rows: Tensor, params: Mapping[str, Tensor] | None) -> Tensor:
        """Logits [N, V] of rows [N, D]."""
        with self._grad():
            return self._replay.head(rows[None], params)[0]

    def last_hidden(self, batch: Batch) -> Tensor:
        """[B, T, D] in the model's dtype: what the LM head reads, after the final norm."""
        if not batch.examples:
            return self._nothing(batch, self._replay.shape.hidden_size)
        trail = self._trail(batch)
        if trail.last_hidden is None and self._frozen:
            trail.last_hidden = self._prefix.kept_value(batch, "last")
        if trail.last_hidden is None:
            n = self._replay.shape.n_blocks
            start, hidden = self._resume_point(batch, trail, n)
            with self._grad():
                trail.last_hidden, found = self._replay.last_hidden(
                    batch, start=start, hidden=hidden, keep=range(start, n), params=self._params()
                )
            trail.outputs |= found
        return trail.last_hidden

    def assume(self, batch: Batch, known: Mapping[What, Tensor]) -> None:
        """Take block outputs and last hidden state [B, T, D] of this view that were computed before. For the engine."""
        outputs = {what: h for what, h in known.items() if isinstance(what, int)}
        self._trail(batch).take(Trail(outputs, known.get("last")))

    def _reach(self, batch: Batch, trail: Trail, blocks: Iterable[int]) -> None:
        """Have the outputs of `blocks`, none of them taken from the prefix, in the trail.

        The outputs on the way are held too: no order of readings computes a block twice.
        """
        missing = sorted(b for b in blocks if b not in trail.outputs)
        if self._frozen:
            for block in missing:
                if (value := self._prefix.kept_value(batch, block)) is not None:
                    trail.outputs[block] = value
            missing = [b for b in missing if b not in trail.outputs]
        if not missing:
            return
        start, hidden = self._resume_point(batch, trail, missing[0])
        stop = missing[-1]
        with self._grad():
            found = self._replay.blocks_to(
                batch, start=start, hidden=hidden, stop=stop, keep=range(start, stop), params=self._params()
            )
        trail.outputs |= {b: h for b, h in found.items() if b not in trail.outputs}

    def _resume_point(self, batch: Batch, trail: Trail, block: int) -> tuple[int, Tensor | None]:
        """The deepest known place below `block`: (first block to run, its input)."""
        below = [b for b in trail.outputs if b < block]
        if below:
            return max(below) + 1, trail.outputs[max(below)]
        return self._prefix.lowest, self._prefix.input_of_lowest(batch)

    def _nothing(self, batch: Batch, size: int) -> Tensor:
        """[0, T, size] for a batch without examples."""
        dtype = next(self._replay.model.parameters()).dtype
        return torch.zeros((*batch.input_ids.shape, size), dtype=dtype, device=batch.input_ids.device)

    def _trail(self, batch: Batch) -> Trail:
        """This batch's trail, a fresh one if the weights have changed since."""
        versions = () if self._frozen else tuple(p._version for p in self._trainable.values())
        known = self._trails.get(batch)
        if known is None or known.versions != versions:
            known = self._trails[batch] = Trails(versions, live=Trail(dict(self._given.get(batch, {}))))
        if torch.is_grad_enabled() and not self._frozen:
            return known.live
        known.still.take(known.live)
        return known.still

    def _params(self) -> Mapping[str, Tensor] | None:
        return self._values

    def _grad(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen)


class ModelViews:
    """Policy and reference over one model; owns the originals of the trainable tensors.

    `kept_calls`, `kept_flops`: block calls and FLOPs of `base_value` so far.
    """

    def __init__(
        self, model: nn.Module, shape: ModelShape, trainable: Iterable[str], replay: Replay | None = None
    ) -> None:
        self.shape = shape
        names = list(trainable)
        parameters = dict(model.named_parameters())
        model.requires_grad_(False)
        self.trainable: dict[str, nn.Parameter] = {n: parameters[n] for n in names}
        for parameter in self.trainable.values():
            parameter.requires_grad_(True)
        self.original = {n: p.detach().clone() for n, p in self.trainable.items()}
        """full name -> value when the stage began, of the trainable tensors"""
        self.replay = replay or Replay(model, shape)
        self._prefix = SharedPrefix(self.replay, _lowest(shape, names))
        self.policy = View(self._prefix, self.trainable, frozen=False)
        self.reference = View(self._prefix, self.original, frozen=True)
        self.kept_calls = self.kept_flops = 0

    def keep(self, kept: Kept | None) -> None:
        """From now on read what the base model computes from `kept`, where it has it."""
        self._prefix.kept = kept

    def base_value(self, batch: Batch, what: What, known: Mapping[What, Tensor]) -> Tensor:
        """What the model computed when the stage began, for a whole batch; what is `known` of it is not run again."""
        before = self.replay.block_calls
        with FlopCount() as count:
            value = self._base_value(batch, what, known)
        self.kept_calls += self.replay.block_calls - before
        self.kept_flops += count.flops
        return value

    def _base_value(self, batch: Batch, what: What, known: Mapping[What, Tensor]) -> Tensor:
        values = self.before
        view = View(SharedPrefix(self.replay, 0), values, frozen=True)
        view.assume(batch, known)
        if what == "last":
            return view.last_hidden(batch)
        if what == "logprobs":
            return view.token_logprobs(batch)
        return view.hidden(batch, [what])[what]

    def restore(self) -> None:
        """Put the original values of the trainable tensors back, bit for bit."""
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(self.original[name])
                parameter.grad = None
        self.clear()

    @property
    def before(self) -> Mapping[str, Tensor]:
        """What the reference reads: the original values of all that may change now, those of an open attack as well."""
        return self.reference._values or {}

    @contextmanager
    def also_changing(self, extra: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, the parameters `extra` may change as well; the reference keeps reading their `values`.

        What lies below all that may change is still shared by both views.
        """
        lowest = _lowest(self.shape, [*self.trainable, *extra])
        prefix = self._prefix if lowest == self._prefix.lowest else SharedPrefix(self.replay, lowest, self._prefix.kept)
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
        """Forget all activations of both views, which frees their memory. The engine does so between steps."""
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
