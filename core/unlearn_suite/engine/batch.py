"""Examples as tensors: right-padded batches whose means do not depend on how the batch is cut."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import PlanError
from ..models.chat import ChatTemplate
from ..specs import Example

Over = Literal["content", "response"]
"""a mask of a batch's tokens: see `Batch`"""


@dataclass(frozen=True)
class Encoded:
    """One tokenised example."""

    example: Example
    """what was tokenised"""
    input_ids: tuple[int, ...]
    """ids of prompt and text, cut to the stage's `length`, not padded; two or more"""
    response_start: int
    """index of the first token of `text`: how many tokens the prompt has"""

    @cached_property
    def key(self) -> str:
        """A hash of the token ids, equal only if they are."""
        return hashlib.blake2b(array("q", self.input_ids).tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Totals:
    """Counts of the whole batch that a (micro-)batch belongs to: the denominators of all means."""

    content: float
    """tokens of the mask "content\""""
    response: float
    """tokens of the mask "response\""""
    examples: float
    """examples"""


@dataclass(frozen=True, eq=False)
class Batch:
    """A right-padded batch of B examples, T tokens wide. It is read only.

    Two masks (`over`) say which tokens count. "content" is every real token but the first (the attention sink,
    which nothing predicts either); "response" is the content that belongs to `text`, not to the prompt (the same for
    an example without prompt). Where the stage sets `end`, the end token belongs to `text`.

    A view remembers what it has computed for this very object: give the same object to both views, and call `to` once.
    """

    input_ids: Tensor
    """[B, T] int64"""
    attention_mask: Tensor
    """[B, T] int64: 1 for real tokens, 0 for padding"""
    in_text: Tensor
    """[B, T] bool: the token belongs to `text`, not to the prompt; False for padding"""
    examples: tuple[Example, ...]
    """the B examples, row by row"""
    totals: Totals
    """counts (`content`, `response`, `examples`) of the whole batch that this is a part of: what means divide by"""
    keys: tuple[str, ...] = field(default=(), init=False)
    """each row's `Encoded.key`; () for a batch that was made in another way, such as with `dataclasses.replace`"""
    shares: int = 1
    """into how many shares the whole batch is cut; this is one of them"""
    counted: bool = True
    """False: one row that stands for none, so that every process runs the model alike; no mean sees it"""

    def mask(self, over: Over) -> Tensor:
        """[B, T] bool, a new tensor: the tokens of a mask."""
        content = self.attention_mask.bool()
        content[:, 0] = False
        if not self.counted:
            content.zero_()
        return content if over == "content" else content & self.in_text

    def mean(self, x_bt: Tensor, over: Over = "content") -> Tensor:
        """Mean of [B, T] values over a mask: a scalar, float32. Masked-out values (even NaN) count for nothing.

        It divides by the whole batch's count, so the means of micro-batches and of shares add up to that of the batch.
        0 where the mask is empty.
        """
        mask = self.mask(over)
        total = x_bt.float().masked_fill(~mask, 0.0).sum()
        return total / max(getattr(self.totals, over), 1.0)

    def mean_examples(self, x_b: Tensor) -> Tensor:
        """Mean of [B] values over the examples of the whole batch: a scalar, float32. Parts add up as with `mean`."""
        x_b = x_b.float()
        return (x_b if self.counted else x_b.masked_fill(torch.ones_like(x_b).bool(), 0.0)).sum() / self.totals.examples

    def sum_per_example(self, x_bt: Tensor, over: Over = "response") -> Tensor:
        """[B] float32: sums of [B, T] values over a mask, which here is the response unless told otherwise."""
        return x_bt.float().masked_fill(~self.mask(over), 0.0).sum(dim=1)

    def split(self, size: int) -> list[Batch]:
        """Micro-batches of `size` examples (the last may have fewer), each as wide as its longest example.

        They keep this batch's totals.
        """
        return [self._rows(slice(start, start + size)) for start in range(0, len(self.examples), size)]

    def empty(self) -> Batch:
        """No example of this batch (B = 0, T = 1): a micro-batch whose means are 0."""
        return self._rows(slice(0, 0))

    def share(self, index: int, of: int) -> Batch:
        """Part `index` (from 0) of `of` parts whose sizes differ by one row at most, with this batch's totals.

        A part without rows is `nothing()`. `StageContext.draw` does this.
        """
        n = len(self.examples)
        start, end = n * index // of, n * (index + 1) // of
        part = self._rows(slice(start, end)) if end > start else self.nothing()
        return _keyed(replace(part, shares=of), part.keys)

    def nothing(self) -> Batch:
        """The first row, counted as none: the model runs on it, and every mask and mean is empty."""
        return replace(self._rows(slice(0, 1)), counted=False)

    def to(self, device: torch.device | str) -> Batch:
        """The batch with its tensors on a device. A new object: views know nothing of it yet."""
        moved = replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            in_text=self.in_text.to(device),
        )
        return _keyed(moved, self.keys)

    def _rows(self, rows: slice) -> Batch:
        lengths = self.attention_mask[rows].sum(dim=1)
        width = int(lengths.max()) if len(lengths) else 1
        part = replace(
            self,
            input_ids=self.input_ids[rows, :width],
            attention_mask=self.attention_mask[rows, :width],
            in_text=self.in_text[rows, :width],
            examples=self.examples[rows],
        )
        return _keyed(part, self.keys[rows])


def _keyed(batch: Batch, keys: tuple[str, ...]) -> Batch:
    """`batch`, which is still ours alone, with the keys of its rows."""
    object.__setattr__(batch, "keys", keys)
    return batch


def encode(
    tokenizer: Any,
    examples: Sequence[Example],
    length: int,
    *,
    end: bool = False,
    chat: ChatTemplate | None = None,
) -> list[Encoded]:
    """Tokenise prompt and text apart (so that the boundary is exact) and cut to `length` tokens.

    With `chat` a prompt is the user's turn, its text the assistant's, and what ends a turn is its end token.

    A prompt that would leave no room keeps its end: at least half of `length` goes to the text. `end`: the end token
    is the last of every text. Raises `PlanError` when there is none.
    """
    if end and tokenizer.eos_token_id is None:
        raise PlanError("the tokenizer has no end token", code="no-end-token", hint="set `end: false` in the stage")
    encoded = []
    for example in examples:
        closing = [tokenizer.eos_token_id] if end else []
        if chat and example.prompt:
            prompt, text = chat.prompt(example.prompt), chat.answer(example.text)
            closing = chat.closing if end else []
        else:
            prompt = tokenizer(example.prompt)["input_ids"] if example.prompt else []
            text = tokenizer(example.text, add_special_tokens=not example.prompt)["input_ids"] if example.text else []
        if text and text[-len(closing) :] != closing:
            text = text + closing
        prompt = prompt[-max(length - len(text), length // 2) :]
        ids = (prompt + text)[:length]
        if len(ids) >= 2:
            encoded.append(Encoded(example, tuple(ids), len(prompt)))
    return encoded


def collate(encoded: Sequence[Encoded], pad_id: int) -> Batch:
    """Right-pad to the longest example."""
    width = max(len(e.input_ids) for e in encoded)
    ids = torch.full((len(encoded), width), pad_id, dtype=torch.long)
    attention = torch.zeros((len(encoded), width), dtype=torch.long)
    response = torch.zeros((len(encoded), width), dtype=torch.bool)
    for row, e in enumerate(encoded):
        n = len(e.input_ids)
        ids[row, :n] = torch.tensor(e.input_ids)
        attention[row, :n] = 1
        response[row, e.response_start : n] = True
    batch = Batch(ids, attention, response, tuple(e.example for e in encoded), Totals(0, 0, 0))
    content, inside = float(batch.mask("content").sum()), float(batch.mask("response").sum())
    counted = replace(batch, totals=Totals(content, inside, float(len(encoded))))
    return _keyed(counted, tuple(e.key for e in encoded))


class RoleData:
    """The encoded examples of one data role and their order, a pure function of (seed, role, step).

    Nothing about the order has state, so an exact resume needs only the step number. `len()` tells how many there are;
    examples of fewer than two tokens are left out.
    """

    def __init__(self, role: str, encoded: Sequence[Encoded], pad_id: int, seed: int) -> None:
        if not encoded:
            raise PlanError(
                f"role {role!r} has no example of two tokens or more",
                code="no-text",
                hint="give it longer texts, or a larger `length`",
            )
        self.role = role
        """the role's name"""
        self.encoded = list(encoded)
        """the examples as tokens, each an `Encoded`, in the dataset's order"""
        self._pad_id = pad_id
        self._seed = seed
        self._epoch: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return len(self.encoded)

    def _permutation(self, epoch: int) -> list[int]:
        if self._epoch[0] != epoch:
            salt = int.from_bytes(self.role.encode()[:6].ljust(6, b"_"), "big")
            generator = torch.Generator().manual_seed((self._seed * 1_000_003 + epoch * 7919 + salt) % 2**63)
            self._epoch = (epoch, torch.randperm(len(self.encoded), generator=generator).tolist())
        return self._epoch[1]

    def batch(self, step: int, size: int) -> Batch:
        """The batch of a step, on the CPU: `size` examples, without replacement within an epoch.

        The whole batch on every process; a loss takes its batches from `StageContext.draw`.
        """
        start = step * size
        rows = []
        for position in range(start, start + size):
            epoch, offset = divmod(position, len(self.encoded))
            rows.append(self.encoded[self._permutation(epoch)[offset]])
        return collate(rows, self._pad_id)

    def chunks(self, size: int, limit: int | None = None) -> Iterator[Batch]:
        """All examples (the first `limit`) in the dataset's order, in batches of `size`, on the CPU.

        The same on every process.
        """
        encoded = self.encoded[:limit]
        for start in range(0, len(encoded), size):
            yield collate(encoded[start : start + size], self._pad_id)


def make_roles(
    tokenizer: Any,
    examples: Mapping[str, Sequence[Example]],
    *,
    length: int,
    seed: int,
    pad_id: int,
    end: bool = False,
    chat: ChatTemplate | None = None,
) -> dict[str, RoleData]:
    """Encode every role that has text."""
    roles = {}
    for role, items in examples.items():
        encoded = encode(tokenizer, items, length, end=end, chat=chat)
        if encoded:
            roles[role] = RoleData(role, encoded, pad_id, seed)
    return roles
