"""What the model writes after training: repeated, empty or absurd text fools scorers that look for something bad."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...specs import Example
from ..objective import Scalars
from .detector import ROWS, Alarm, Bench, Detector

PROMPT_TOKENS = 8
NEW_TOKENS = 32


class OwnOutput(Detector):
    """Continuations of forget prompts (of the first 8 tokens, for text without a prompt): statistics, and their
    perplexity under the model that the stage began with, against that of its own continuations."""

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

    def close(self, bench: Bench) -> Scalars:
        texts = self._sample(bench)
        found = {f"diag_own_{n.replace('-', '_')}": v for n, v in bench.ctx.services.statistics(texts).items()}
        now, before = (self._perplexity(bench, part) for part in (texts, self._before))
        if now is not None and before is not None:
            found["diag_own_ppl_ratio"] = now / before
        return found

    def _sample(self, bench: Bench) -> list[str]:
        texts = bench.ctx.services.sample(
            self._prompts, n=1, max_new_tokens=NEW_TOKENS, temperature=1.0, top_p=0.9, seed=0
        )
        return [text for (text,) in texts]

    def _perplexity(self, bench: Bench, texts: Sequence[str]) -> float | None:
        """Under the model at the start; None when there is nothing to read."""
        pairs = zip(self._prompts, texts, strict=True)
        examples = [Example(str(i), text, prompt) for i, (prompt, text) in enumerate(pairs) if text.strip()]
        total = tokens = 0.0
        for batch in bench.ctx.encode("own", examples).chunks(ROWS) if examples else ():
            moved = batch.to(bench.ctx.device)
            total += float(bench.ctx.reference.token_logprobs(moved, "response").sum())
            tokens += moved.totals.response
            bench.ctx.views.clear()
        return math.exp(min(-total / tokens, 700.0)) if tokens else None
