"""The model as metrics see it: log-probabilities, rolling log-probabilities, and continuations of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..models.chat import ChatTemplate
from .encode import Encoder, Item, max_length_of
from .forward import Forward
from .generate import Generator, Sampling
from .memory import ScoreMemory
from .scorer import Scorer, TokenScores

__all__ = ["EvalModel", "TokenScores"]

Progress = Callable[[int, int], None]
"""told (done, total) after every batch"""


class EvalModel:
    """A causal language model and its tokenizer, ready for metrics. Weights are read, never changed.

    All methods take any number of texts at once and do the batching; results come in the order of what was given, and
    do not depend on it beyond rounding. With `chat` every prompt (a context that is not empty) is a turn of the user,
    and what follows it the assistant's. `originals` holds the published model's values of the parameters that are
    others now.
    """

    def __init__(
        self,
        hf: Any,
        tokenizer: Any,
        *,
        device: torch.device | str | None = None,
        batch_tokens: int = 2048,
        rows: int = 64,
        max_length: int | None = None,
        memory: ScoreMemory | None = None,
        originals: MutableMapping[str, Tensor] | None = None,
        chat: ChatTemplate | None = None,
    ) -> None:
        self.hf = hf
        """the live transformers model, for metrics that need more than the methods here"""
        self.tokenizer = tokenizer
        """its tokenizer"""
        self.device = torch.device(device) if device is not None else hf.device
        """where the model runs (none given = where it is)"""
        self.batch_tokens = batch_tokens
        """largest rows x tokens of a forward pass"""
        self.rows = rows
        """sequences that are generated together"""
        self.max_length = max_length or max_length_of(hf, tokenizer)
        """the model's context in tokens (none given = as its configuration tells)"""
        self.progress: Progress | None = None
        """called after every batch; the host's"""
        self.memory = memory
        """answers what was asked before, for a model whose weights stand still; the host's"""
        self.chat = chat
        """how prompts become turns of the user; None = they are plain text"""
        self.first = 0
        """number of the first prompt among all prompts, where a metric is given its examples in parts; the host's"""
        self._originals = originals if originals is not None else {}
        self._encoder = Encoder(tokenizer, self.max_length, chat)
        self._forward = Forward(hf, self.device)

    def logprobs(self, pairs: Sequence[tuple[str, str]], *, moments: bool = False) -> list[TokenScores]:
        """Scores of each continuation's tokens after its context, one per (context, continuation) pair, in their order.

        Tokenised as lm-evaluation-harness does it. `moments`: with `means` and `variances`. A context that does not fit
        loses its beginning (with a warning in the log). Raises `PlanError` for a continuation without tokens
        (`empty-continuation`) or longer than the model's context (`too-long`), and for an empty context as `rolling`.
        """
        items = [self._encoder.pair(context, continuation) for context, continuation in pairs]
        self._encoder.warn_if_cut(items)
        return self._scored(items, moments)

    def rolling(
        self, texts: Sequence[str], *, max_tokens: int | None = None, moments: bool = False
    ) -> list[TokenScores]:
        """Scores of every token of each text (of its first `max_tokens`), after the bos (or eos) token, one per text.

        A text longer than the model's context is cut into windows, each token predicted once. A text
        without tokens gives empty scores. `moments`: with `means` and `variances`. Raises `PrerequisiteError`
        (`no-prefix-token`) for a tokenizer that has neither bos nor eos.
        """
        windows = [self._encoder.windows(text, max_tokens) for text in texts]
        parts = iter(self._scored([w for ws in windows for w in ws], moments))
        return [_joined([next(parts) for _ in ws]) for ws in windows]

    def _scored(self, items: Sequence[Item], moments: bool) -> list[TokenScores]:
        scorer = Scorer(self._forward, self.batch_tokens, self.progress, moments)
        with self._evaluating():
            return self.memory(items, moments, scorer) if self.memory is not None else scorer(items)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> list[list[str]]:
        """`n` (1 or more) continuations of each prompt, without the prompt: one list of texts per prompt.

        A text ends before the first `stop` string, at an end token (which is no part of it), or after `max_new_tokens`.
        `temperature` 0 is greedy, and gives one text `n` times. The text of prompt i, sample j depends on (seed, i, j)
        only (i counts from `first`), not on batching. A prompt that leaves no room for `max_new_tokens` loses its
        beginning. An empty prompt is the bos (or eos) token.
        """
        sampling = Sampling(max_new_tokens, n, temperature, top_p, seed, tuple(stop))
        ids = [self._encoder.prompt(prompt, max_new_tokens) for prompt in prompts]
        if self.memory is None:
            return self._written(ids, sampling)
        asked = (sampling, self.first, tuple(map(tuple, ids)))
        return self.memory.written(asked, lambda: self._written(ids, sampling))

    def _written(self, ids: Sequence[Sequence[int]], sampling: Sampling) -> list[list[str]]:
        with self._evaluating():
            generator = Generator(self._forward, self.tokenizer, self._eos_ids(), self.rows, self.progress)
            return generator(ids, sampling, self.first)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [self._encoder.ids(text, special=False) for text in texts]

    def encode(self, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(ids that are given, ids that are scored), as `logprobs` cuts them; without a context those of the first
        window of `rolling`. For metrics that run `hf` themselves. Raises as these two, and `IndexError` for
        neither a context nor a token."""
        item = self._encoder.pair(context, continuation) if context else self._encoder.windows(continuation)[0]
        return item.context, item.continuation

    @contextmanager
    def published(self) -> Iterator[EvalModel]:
        """For the time of a `with` block, the same model with the published weights: those before the problem's `start`
        and every stage. Do not use this one meanwhile. One tensor more is in memory, not a second model."""
        self._swap()
        try:
            yield EvalModel(
                self.hf,
                self.tokenizer,
                device=self.device,
                batch_tokens=self.batch_tokens,
                rows=self.rows,
                max_length=self.max_length,
                chat=self.chat,
            )
        finally:
            self._swap()

    def _swap(self) -> None:
        """Exchange the weights and their published values."""
        parameters = dict(self.hf.named_parameters())
        with torch.no_grad():
            for name, original in self._originals.items():
                now = parameters[name].detach().clone()
                parameters[name].copy_(original)
                original.copy_(now)

    def _eos_ids(self) -> frozenset[int]:
        configured = getattr(getattr(self.hf, "generation_config", None), "eos_token_id", None)
        ids = configured if isinstance(configured, list) else [configured]
        turn_end = self.chat.closing[:1] if self.chat and len(self.chat.closing) == 1 else []
        return frozenset(i for i in (*ids, self.tokenizer.eos_token_id, *turn_end) if i is not None)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode for the time of a call. `no_grad`, not `inference_mode`: a model may keep tensors
        it makes on the way (rotary tables), and training must be able to use them afterwards."""
        training = self.hf.training
        self.hf.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.hf.train(training)


def _joined(parts: Sequence[TokenScores]) -> TokenScores:
    if len(parts) == 1:
        return parts[0]
    return TokenScores(
        tuple(t for p in parts for t in p.tokens),
        tuple(x for p in parts for x in p.logprobs),
        tuple(g for p in parts for g in p.greedy),
        tuple(m for p in parts for m in p.means),
        tuple(v for p in parts for v in p.variances),
    )
