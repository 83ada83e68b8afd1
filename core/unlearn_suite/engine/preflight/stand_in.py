"""What stands in for the host while an objective runs on a twin: services, a tokenizer, and a plain objective."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...specs import Config, Example, NoConfig
from ..batch import Batch
from ..objective import Loss, LossObjective, Requirements
from ..shape import ModelShape

_CHARACTERS = 4
"""characters of a token where there is no tokenizer to ask (English text)"""


class FoldedTokenizer:
    """A tokenizer whose ids fit the twins' vocabulary: the same number of tokens, other ids.

    Without a tokenizer every `_CHARACTERS` characters are one token.
    """

    def __init__(self, inner: Any, vocabulary: int) -> None:
        self._inner = inner
        self._vocabulary = vocabulary
        self._known: dict[tuple[str, str], list[int]] = {}
        self.pad_token_id = self.eos_token_id = self.bos_token_id = 0

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        key = (text, repr(options))
        if key not in self._known:
            self._known[key] = [i % self._vocabulary for i in self._ids(text, options)]
        return {"input_ids": list(self._known[key])}

    def _ids(self, text: str, options: Mapping[str, Any]) -> list[int]:
        if self._inner is not None:
            ids: list[int] = self._inner(text, **options)["input_ids"]
            return ids
        pieces = [text[i : i + _CHARACTERS] for i in range(0, len(text), _CHARACTERS)]
        return [sum(map(ord, piece)) for piece in pieces]

    def encode(self, text: str, **options: Any) -> list[int]:
        return self(text, **options)["input_ids"]

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@dataclass(frozen=True)
class Sampled:
    """One call of `ctx.services.sample`."""

    prompts: tuple[str, ...]
    n: int
    max_new_tokens: int
    temperature: float
    top_p: float


class TwinServices:
    """The twin cannot write: its "continuations" are the beginnings of the plan's own texts, from all roles in turn."""

    def __init__(self, examples: Mapping[str, Sequence[Example]]) -> None:
        roles = [[e.text for e in items if e.text] for items in examples.values()]
        self._roles = [texts for texts in roles if texts] or [["text"]]
        self.sampled: list[Sampled] = []

    def sample(
        self, prompts: Sequence[str], *, n: int, max_new_tokens: int, temperature: float, top_p: float, seed: int
    ) -> list[list[str]]:
        self.sampled.append(Sampled(tuple(prompts), n, max_new_tokens, temperature, top_p))
        return [[self._text(i * n + j, max_new_tokens) for j in range(n)] for i in range(len(prompts))]

    def _text(self, index: int, tokens: int) -> str:
        turn, role = divmod(index, len(self._roles))
        texts = self._roles[role]
        return " ".join(texts[turn % len(texts)].split()[:tokens])

    def memo(self, name: str, key: Any, build: Callable[[], Any]) -> Any:
        return build()

    def statistics(self, texts: Sequence[str]) -> Mapping[str, float]:
        """Nothing is known of texts that nobody wrote."""
        return defaultdict(float)

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


class Declared(LossObjective[Config]):
    """Reads and trains what an objective's `Requirements` name, of every role: for one that cannot run on a twin."""

    def __init__(self, needs: Requirements) -> None:
        super().__init__(NoConfig())
        self.needs = needs

    def requirements(self, shape: ModelShape) -> Requirements:
        return self.needs

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        views = (self.ctx.policy, self.ctx.reference) if self.needs.reference else (self.ctx.policy,)
        parts = {}
        for role, b in batch.items():
            if self.needs.reads >= 0:
                first, *others = (view.hidden(b, [self.needs.reads])[self.needs.reads] for view in views)
                change = first.float() - (others[0].float() if others else 1.0)
                parts[f"{role}-hidden"] = b.mean(change.square().mean(-1))
            if self.needs.logits:
                first, *others = (view.token_logprobs(b) for view in views)
                parts[f"{role}-logits"] = b.mean(first - others[0] if others else first)
        return Loss(parts)
