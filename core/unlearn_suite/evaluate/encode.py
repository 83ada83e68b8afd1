"""Text as tokens, cut as lm-evaluation-harness cuts it, so that the same items get the same scores."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PlanError, PrerequisiteError
from ..models.chat import ChatTemplate

LOG = logging.getLogger(__name__)

DEFAULT_MAX_LENGTH = 2048


@dataclass(frozen=True)
class Item:
    """Tokens that are given and tokens that are scored. Both have at least one token."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """What the model reads: everything but the last token, which is only predicted."""
        return self.context + self.continuation[:-1]


def max_length_of(hf: Any, tokenizer: Any) -> int:
    """The context length in tokens that the model's configuration tells (else its tokenizer, else 2,048)."""
    config = hf.config.get_text_config()
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(config, name, None)
        if value:
            return int(value)
    told = getattr(tokenizer, "model_max_length", None)
    return int(told) if told and told < 10**9 else DEFAULT_MAX_LENGTH


class Encoder:
    """Strings to token ids, pairs to `Item`s, long texts to windows. With `chat` a prompt (a context that is not
    empty) is a turn of the user, and what follows it the assistant's."""

    def __init__(self, tokenizer: Any, max_length: int, chat: ChatTemplate | None = None) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.chat = chat
        self._prefix_id = tokenizer.bos_token_id
        if self._prefix_id is None:
            self._prefix_id = tokenizer.eos_token_id
        self._prefix_text = "" if self._prefix_id is None else tokenizer.decode([self._prefix_id])

    @property
    def prefix_id(self) -> int:
        """The token that stands for "nothing before": bos, or eos where there is no bos."""
        if self._prefix_id is None:
            raise PrerequisiteError(
                "the tokenizer has neither a beginning-of-sequence nor an end-of-sequence token",
                code="no-prefix-token",
                hint="set bos_token in the tokenizer's configuration",
            )
        return int(self._prefix_id)

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; special tokens are not added a second time to a text that begins with one."""
        if special and self._prefix_text and text.startswith(self._prefix_text):
            special = False
        return list(self.tokenizer.encode(text, add_special_tokens=special))

    def prompt(self, text: str, room: int) -> list[int]:
        """Ids of a prompt to continue by `room` tokens; a longer prompt keeps its end."""
        ids = self.given(text) or [self.prefix_id]
        return ids[-max(self.max_length - room, 1) :]

    def given(self, text: str) -> list[int]:
        """Ids of a whole prompt, none for an empty one."""
        if not text:
            return []
        return self.chat.prompt(text) if self.chat else self.ids(text)

    def pair(self, context: str, continuation: str) -> Item:
        """Spaces at the end of the context count to the continuation; the boundary is found in the
        tokens of both together. Raises `PlanError` for a continuation without tokens."""
        if not context:
            return self._without_context(continuation)
        if self.chat:
            return self._item(self.chat.prompt(context), self.chat.answer(continuation), continuation)
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        given = self.ids(stripped) if stripped else []
        if not given:
            return self._without_context(continuation)
        scored = self.ids(stripped + continuation)[len(given) :]
        # A tokenizer that merges across the boundary can leave nothing over: then the parts are apart.
        return self._item(given, scored or self.ids(continuation, special=False), continuation)

    def _without_context(self, continuation: str) -> Item:
        scored = self.ids(continuation, special=False)
        if len(scored) > 1 and scored[0] == self.prefix_id:
            return self._item(scored[:1], scored[1:], continuation)
        return self._item([self.prefix_id], scored, continuation)

    def _item(self, given: Sequence[int], scored: Sequence[int], text: str) -> Item:
        if not scored:
            raise PlanError(f"there is no token to score in {text!r}", code="empty-continuation")
        if len(scored) > self.max_length:
            raise PlanError(
                f"a continuation of {len(scored)} tokens exceeds the model's context of {self.max_length}",
                code="too-long",
                hint="shorten the text, or score it without a prompt (then it is cut into windows)",
            )
        room = self.max_length + 1 - len(scored)
        return Item(tuple(given[-room:]), tuple(scored))

    def warn_if_cut(self, items: Sequence[Item]) -> None:
        """One line in the log for all items that fill the context (they may have lost their beginning)."""
        full = sum(len(i.context) + len(i.continuation) > self.max_length for i in items)
        if full:
            LOG.warning(
                "%d of %d texts fill the context of %d tokens and may have lost their beginning",
                full,
                len(items),
                self.max_length,
            )

    def windows(self, text: str, max_tokens: int | None = None) -> list[Item]:
        """Every token of `text` predicted once, in windows of the context length; the last window gets a
        full context. `max_tokens` keeps only that many tokens of the text.

        What the tokenizer puts before a text is context, as in `pair`, and never a token of it."""
        ids = self.ids(text, special=False)
        if len(ids) > 1 and ids[0] == self.prefix_id:
            ids = ids[1:]
        return list(self._windows(ids[:max_tokens]))

    def _windows(self, ids: list[int]) -> Iterator[Item]:
        first = ids[: self.max_length]
        if first:
            yield Item((self.prefix_id,), tuple(first))
        for start in range(self.max_length, len(ids), self.max_length):
            end = min(start + self.max_length, len(ids))
            yield Item(tuple(ids[end - self.max_length - 1 : start]), tuple(ids[start:end]))
