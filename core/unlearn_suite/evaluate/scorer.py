"""Log-probabilities of given tokens: bucketed batches, each distinct input and long prefix read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .encode import Item
from .forward import Forward, pad, shareable

MIN_SHARED = 16
"""prefixes shorter than this (tokens) are not worth a forward pass of their own"""

Ids = tuple[int, ...]
"""token ids"""


@dataclass(frozen=True)
class TokenScores:
    """What the model thinks of each scored token, one number per token in each field."""

    tokens: Ids
    """the scored token ids"""
    logprobs: tuple[float, ...]
    """natural log-probabilities (nats)"""
    greedy: tuple[bool, ...]
    """whether the token is the argmax at its position"""
    means: tuple[float, ...] = ()
    """mean of log p(v) over v ~ p at the token's position (nats); empty unless `moments` were asked for"""
    variances: tuple[float, ...] = ()
    """variance of the same (nats squared)"""

    @property
    def total(self) -> float:
        """Sum of the log-probabilities (nats); 0 without tokens."""
        return sum(self.logprobs)

    @property
    def mean_nll(self) -> float:
        """Mean negative log-probability per token (nats). Raises `ZeroDivisionError` without tokens."""
        return -self.total / len(self.logprobs)

    @property
    def exact(self) -> bool:
        """Whether greedy decoding gives exactly these tokens; True without tokens."""
        return all(self.greedy)

    def without_moments(self) -> TokenScores:
        """The same with empty `means` and `variances`."""
        return TokenScores(self.tokens, self.logprobs, self.greedy)


@dataclass(frozen=True)
class Family:
    """Inputs that begin with the same tokens, which are computed once."""

    prefix: Ids
    members: tuple[Ids, ...]

    @property
    def width(self) -> int:
        return max(map(len, self.members))


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass: row r of `h_btd` holds the hidden states of `inputs[r]` from token `starts[r]` on."""

    inputs: Sequence[Ids]
    starts: Sequence[int]
    h_btd: Tensor


class Scorer:
    """Scores items in any order and of any length; results come back in the order of the items."""

    def __init__(
        self,
        forward: Forward,
        batch_tokens: int,
        progress: Callable[[int, int], None] | None = None,
        moments: bool = False,
    ) -> None:
        self.forward = forward
        self.batch_tokens = batch_tokens
        self.progress = progress
        self.moments = moments

    def __call__(self, items: Sequence[Item]) -> list[TokenScores]:
        # Items that differ only in their last token (the letters of an exam) read the same input.
        readers: dict[Ids, list[int]] = {}
        for index, item in enumerate(items):
            readers.setdefault(item.inputs, []).append(index)
        scores: dict[int, TokenScores] = {}
        for done in self._passes(*self._plan(items, readers)):
            self._read(done, items, readers, scores)
            if self.progress:
                self.progress(len(scores), len(items))
        return [scores[index] for index in range(len(items))]

    def _plan(self, items: Sequence[Item], readers: dict[Ids, list[int]]) -> tuple[list[Ids], list[Family]]:
        """Inputs to run by themselves, and families that share a long context or worked examples before it."""
        shortest = {inputs: min((items[i].context for i in which), key=len) for inputs, which in readers.items()}
        by_context: dict[Ids, list[Ids]] = {}
        for inputs, context in shortest.items():
            by_context.setdefault(context, []).append(inputs)
        alone: list[Ids] = []
        families: list[Family] = []
        for context, members in by_context.items():
            family = Family(context[:-1], tuple(members))
            if self._worth(family):
                families.append(family)
            else:
                alone += members
        return self._with_examples(alone, shortest, families), families

    def _with_examples(self, alone: list[Ids], shortest: dict[Ids, Ids], families: list[Family]) -> list[Ids]:
        """Of what runs by itself, what is left when a beginning that all have in common makes families too. Each is
        as large as a batch may be, its beginning counted once."""
        if not alone:
            return alone
        contexts = [shortest[inputs] for inputs in alone]
        prefix = _common([context[:-1] for context in (min(contexts), max(contexts))])
        if not self._worth(Family(prefix, tuple(alone))):
            return alone
        rest: list[Ids] = []
        ordered = sorted(alone, key=len, reverse=True)
        while ordered:
            tail = len(ordered[0]) - len(prefix)
            count = max((self.batch_tokens - len(prefix)) // max(tail, 1), 1)
            members, ordered = ordered[:count], ordered[count:]
            if len(members) > 1:
                families.append(Family(prefix, tuple(members)))
            else:
                rest += members
        return rest

    def _worth(self, family: Family) -> bool:
        """Whether a pass of its own for the prefix saves more than it costs."""
        tail = family.width - len(family.prefix)
        many = len(family.members) > 1 and len(family.prefix) >= max(MIN_SHARED, tail)
        return many and self.forward.takes_positions

    def _passes(self, alone: list[Ids], families: list[Family]) -> Iterator[Pass]:
        for batch in self._cut(sorted(families, key=lambda f: -f.width)):
            done = self._family_pass(batch)
            if done is None:
                alone += [inputs for family in batch for inputs in family.members]
            else:
                yield done
        singles = [Family((), (inputs,)) for inputs in sorted(alone, key=len, reverse=True)]
        for batch in self._cut(singles):
            inputs = [family.members[0] for family in batch]
            ids_bt, _ = pad(inputs, self.forward.device)
            # No mask: what is padded comes after every token that is read, and a causal model looks back only.
            h_btd, _ = self.forward.hidden(ids_bt, None)
            yield Pass(inputs, [0] * len(inputs), h_btd)

    def _cut(self, families: list[Family]) -> Iterator[list[Family]]:
        """Batches (longest first) whose rows x longest row stays within the token budget."""
        batch: list[Family] = []
        rows = 0
        for family in families:
            width = batch[0].width if batch else family.width
            if batch and width * (rows + len(family.members)) > self.batch_tokens:
                yield batch
                batch, rows = [], 0
            batch.append(family)
            rows += len(family.members)
        if batch:
            yield batch

    def _family_pass(self, batch: list[Family]) -> Pass | None:
        """The prefixes once, then all tails on their cached keys and values; None where a cache cannot be
        shared (recurrent layers)."""
        forward = self.forward
        prefix_ids, prefix_mask = pad([family.prefix for family in batch], forward.device, left=True)
        positions = (prefix_mask.cumsum(dim=1) - 1).clamp_min(0)
        _, cache = forward.hidden(prefix_ids, prefix_mask, positions, keep=True)
        if not shareable(cache):
            return None
        rows = [(index, inputs) for index, family in enumerate(batch) for inputs in family.members]
        owner = torch.tensor([index for index, _ in rows], device=forward.device)
        cache.batch_select_indices(owner)
        starts = [len(batch[index].prefix) for index, _ in rows]
        tails = [inputs[start:] for start, (_, inputs) in zip(starts, rows, strict=True)]
        tail_ids, tail_mask = pad(tails, forward.device)
        offsets = torch.tensor(starts, device=forward.device)[:, None]
        tail_positions = offsets + torch.arange(tail_ids.shape[1], device=forward.device)
        mask = torch.cat([prefix_mask[owner], tail_mask], dim=1)
        h_btd, _ = forward.hidden(tail_ids, mask, tail_positions, cache, keep=True)
        return Pass([inputs for _, inputs in rows], starts, h_btd)

    def _read(
        self, done: Pass, items: Sequence[Item], readers: dict[Ids, list[int]], scores: dict[int, TokenScores]
    ) -> None:
        """Only positions whose next token is scored go through the head."""
        wanted: list[int] = []
        pieces: list[Tensor] = []
        for row, (inputs, start) in enumerate(zip(done.inputs, done.starts, strict=True)):
            for index in readers[inputs]:
                wanted.append(index)
                pieces.append(done.h_btd[row, len(items[index].context) - 1 - start : len(inputs) - start])
        targets = [token for index in wanted for token in items[index].continuation]
        found = self.forward.score(torch.cat(pieces), targets, self.moments)
        at = 0
        for index in wanted:
            tokens = items[index].continuation
            part = slice(at, at + len(tokens))
            scores[index] = TokenScores(
                tokens,
                tuple(found.logprobs[part]),
                tuple(found.greedy[part]),
                tuple(found.means[part]),
                tuple(found.variances[part]),
            )
            at = part.stop


def _common(rows: Sequence[Ids]) -> Ids:
    """The tokens that all rows begin with; of many rows the smallest and the largest tell."""
    length = 0
    for tokens in zip(*rows, strict=False):
        if len(set(tokens)) > 1:
            break
        length += 1
    return rows[0][:length]
