"""Does one word of what was forgotten upset text that is to be kept? (The backdoor of representation misdirection.)"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ...specs import Example
from ..batch import Batch
from ..objective import Scalars
from ..views import View
from .detector import ROWS, Alarm, Bench, Detector

WORD = re.compile(r"[^\W\d_]{3,}")
Worded = tuple[list[Batch], float]
"""texts after a word each, and the sum of their log-probs in the first model"""


class ForgetWord(Detector):
    """Kept texts after a word of a text to forget, against the same after a word of another kept text. Per token:

        excess = exp( (log p_ref - log p | forgotten word) - (log p_ref - log p | kept word) ) - 1

    Source: RMU's fragility to forget tokens in the question (arXiv:2501.19202).
    """

    alarms = {  # noqa: RUF012
        "diag_forget_word": Alarm("a forgotten word makes the kept text after it less likely", at_most=0.05)
    }

    def __init__(self) -> None:
        self._texts: list[Worded] = []
        """after a forgotten word, after a kept one"""

    def measure(self, bench: Bench) -> Scalars:
        if not self._texts:
            self._texts = self._worded(bench)
        first, other = (_fall(bench, worded) for worded in self._texts)
        return {"diag_forget_word": math.expm1(min(first - other, 700.0))}

    def _worded(self, bench: Bench) -> list[Worded]:
        kept = [_whole(e) for b in bench.retain for e in b.examples]
        forgotten = [_whole(e) for b in bench.forget for e in b.examples]
        known = {word.lower() for text in kept for word in WORD.findall(text)}
        first = [_longest(forgotten[i % len(forgotten)], known) for i in range(len(kept))]
        other = [_longest(kept[i - 1], set()) for i in range(len(kept))]
        return [_read(bench, words, kept) for words in (first, other)]


def _read(bench: Bench, words: Sequence[str], texts: Sequence[str]) -> Worded:
    """The texts, each after its word, and what the first model makes of them: it reads them once."""
    examples = [Example(str(i), f" {text}", word) for i, (word, text) in enumerate(zip(words, texts, strict=True))]
    batches = [b.to(bench.ctx.device) for b in bench.ctx.encode("worded", examples).chunks(ROWS)]
    before = sum(_total(bench.ctx.reference, b) for b in batches)
    bench.ctx.views.clear()
    return batches, before


def _fall(bench: Bench, worded: Worded) -> float:
    """How much less likely the texts are than in the first model, nats per token."""
    batches, before = worded
    now = sum(_total(bench.ctx.policy, b) for b in batches)
    bench.ctx.views.clear()
    return (before - now) / max(sum(int(b.mask("response").sum()) for b in batches), 1)


def _total(view: View, batch: Batch) -> float:
    return float(view.token_logprobs(batch, "response").double().sum())


def _whole(example: Example) -> str:
    return " ".join(f"{example.prompt} {example.text}".split())


def _longest(text: str, known: set[str]) -> str:
    """The longest word of a text that is not known; of all of them where none is new; the text where it has no word."""
    words = WORD.findall(text)
    return max([w for w in words if w.lower() not in known] or words or [text], key=len)
