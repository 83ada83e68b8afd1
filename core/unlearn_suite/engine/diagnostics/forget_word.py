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


class ForgetWord(Detector):
    """Kept texts after a word of a text to forget, against the same after a word of another kept text. Per token:

        excess = exp( (log p_ref - log p | forgotten word) - (log p_ref - log p | kept word) ) - 1

    Source: RMU's fragility to forget tokens in the question (arXiv:2501.19202).
    """

    alarms = {  # noqa: RUF012
        "diag_forget_word": Alarm("a forgotten word makes the kept text after it less likely", at_most=0.05)
    }

    def measure(self, bench: Bench) -> Scalars:
        kept = [_whole(e) for b in bench.retain for e in b.examples]
        forgotten = [_whole(e) for b in bench.forget for e in b.examples]
        known = {word.lower() for text in kept for word in WORD.findall(text)}
        first = [_longest(forgotten[i % len(forgotten)], known) for i in range(len(kept))]
        other = [_longest(kept[i - 1], set()) for i in range(len(kept))]
        rise = _fall(bench, first, kept) - _fall(bench, other, kept)
        return {"diag_forget_word": math.expm1(min(rise, 700.0))}


def _fall(bench: Bench, words: Sequence[str], texts: Sequence[str]) -> float:
    """How much less likely the texts after these words are than in the first model, nats per token."""
    examples = [Example(str(i), f" {text}", word) for i, (word, text) in enumerate(zip(words, texts, strict=True))]
    batches = [b.to(bench.ctx.device) for b in bench.ctx.encode("worded", examples).chunks(ROWS)]
    before, now = (sum(_total(view, b) for b in batches) for view in (bench.ctx.reference, bench.ctx.policy))
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
