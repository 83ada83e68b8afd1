"""Plain statistics of generated text, to stand beside scores that broken text can fool."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean

from ..specs import ValueSpec

TEXT_STATISTICS: Mapping[str, ValueSpec] = {
    "length": ValueSpec("tokens per continuation", unit="tokens", lowest=0),
    "distinct-1": ValueSpec(
        "distinct tokens / tokens, over all continuations of a prompt", better="higher", lowest=0, highest=1
    ),
    "distinct-2": ValueSpec(
        "distinct token pairs / token pairs, over all continuations of a prompt",
        better="higher",
        lowest=0,
        highest=1,
    ),
    "distinct-3": ValueSpec(
        "distinct runs of three tokens / runs of three, over all continuations of a prompt",
        better="higher",
        lowest=0,
        highest=1,
    ),
    "repetition": ValueSpec(
        "share of 4-grams that occurred before in the same continuation", better="lower", lowest=0, highest=1
    ),
    "empty": ValueSpec("share of blank continuations", better="lower", lowest=0, highest=1),
}
"""What `text_statistics` returns, for use in a metric's `values`."""

Tokens = Sequence[Hashable]
"""tokens of one text: ids, or words"""


def ngrams(tokens: Tokens, n: int) -> list[tuple[Hashable, ...]]:
    """All runs of n tokens, in order."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def distinct(samples: Sequence[Tokens], n: int) -> float:
    """Distinct n-grams / n-grams, pooled over samples; 0 where there is none (no text is not diverse)."""
    grams = [gram for tokens in samples for gram in ngrams(tokens, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(tokens: Tokens, n: int = 4) -> float:
    """Share of n-grams that occurred earlier in the same sample; 0 for a sample shorter than n."""
    grams = ngrams(tokens, n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def text_statistics(texts: Sequence[str], tokens: Sequence[Tokens]) -> dict[str, float]:
    """Name -> value of the `TEXT_STATISTICS` of one prompt's continuations. `tokens` are the same texts, tokenised.

    Raises `ValueError` for no text, or lists of different lengths.
    """
    if not texts or len(texts) != len(tokens):
        raise ValueError(f"{len(texts)} texts with {len(tokens)} token lists: one or more pairs are needed")
    return {
        "length": fmean(map(len, tokens)),
        "distinct-1": distinct(tokens, 1),
        "distinct-2": distinct(tokens, 2),
        "distinct-3": distinct(tokens, 3),
        "repetition": fmean(map(repetition, tokens)),
        "empty": fmean(not text.strip() for text in texts),
    }
