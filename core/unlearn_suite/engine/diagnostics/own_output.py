"""What the model writes: repeated, empty or absurd text fools scorers that look for something bad."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from ...specs import Example
from .. import losses
from ..batch import Batch
from ..objective import Scalars
from .detector import ROWS, Alarm, Bench, Detector

PROMPT_TOKENS = 8
NEW_TOKENS = 32


class OwnOutput(Detector):
    """Continuations of forget prompts (of the first 8 tokens, for text without a prompt), at the end and every
    `sample_every` steps: statistics, the mean entropy of the model's next-token distributions over them (nats), and
    their perplexity under the model that the stage began with, against that of its own continuations."""

    alarms = {  # noqa: RUF012
        "diag_own_repetition": Alarm("the model repeats itself", at_most=0.3),
        "diag_own_empty": Alarm("the model writes nothing", at_most=0.05),
        "diag_own_ppl_ratio": Alarm("the model writes what the original would never write", at_most=10.0),
    }

    def __init__(self) -> None:
        self._prompts: list[str] = []
        self._before: list[str] = []

    def start(self, bench: Bench) -> None:
        ctx = bench.ctx
        for batch in bench.forget:
            for row, example in enumerate(batch.examples):
                start = ctx.tokenizer.decode(batch.input_ids[row, :PROMPT_TOKENS], skip_special_tokens=True)
                self._prompts.append(example.prompt or start)
        key = {"prompts": self._prompts, "tokens": NEW_TOKENS}
        self._before = ctx.services.memo("own-output", key, lambda: self._sample(bench))

    def is_due(self, bench: Bench, done: int) -> bool:
        return bench.samples_after(done)

    def measure(self, bench: Bench) -> Scalars:
        return self._read(bench) if bench.ctx.train.steps else {}  # without a step the end has read it

    def close(self, bench: Bench) -> Scalars:
        return self._read(bench)

    def _read(self, bench: Bench) -> Scalars:
        texts = self._sample(bench)
        found = {f"diag_own_{n.replace('-', '_')}": v for n, v in bench.ctx.services.statistics(texts).items()}
        now, before = (self._nll(bench, part) for part in (texts, self._before))
        if now is not None and before is not None:
            found["diag_own_ppl_ratio"] = _exp(now) / _exp(before)
        if (entropy := self._entropy(bench, texts)) is not None:
            found["diag_own_entropy"] = entropy
        return found

    def _sample(self, bench: Bench) -> list[str]:
        texts = bench.ctx.services.sample(
            self._prompts, n=1, max_new_tokens=NEW_TOKENS, temperature=1.0, top_p=0.9, seed=0
        )
        return [text for (text,) in texts]

    def _nll(self, bench: Bench, texts: Sequence[str]) -> float | None:
        """Nats per token under the model at the start; None when there is nothing to read."""
        mean = self._mean(bench, texts, lambda batch: bench.ctx.reference.token_logprobs(batch, "response"))
        return None if mean is None else -mean

    def _entropy(self, bench: Bench, texts: Sequence[str]) -> float | None:
        """Of the model as it is now, nats per token; None as above."""
        return self._mean(
            bench, texts, lambda b: bench.ctx.policy.per_token(b, lambda z, _: losses.entropy(z), "response")
        )

    def _mean(self, bench: Bench, texts: Sequence[str], read: Callable[[Batch], Tensor]) -> float | None:
        """Over the texts' tokens after their prompts, of what `read` makes [B, T] of a batch."""
        pairs = zip(self._prompts, texts, strict=True)
        examples = [Example(str(i), text, prompt) for i, (prompt, text) in enumerate(pairs) if text.strip()]
        total = tokens = 0.0
        for batch in bench.ctx.encode("own", examples).chunks(ROWS) if examples else ():
            moved = batch.to(bench.ctx.device)
            total += float(read(moved).sum())
            tokens += moved.totals.response
            bench.ctx.views.clear()
        return total / tokens if tokens else None


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
