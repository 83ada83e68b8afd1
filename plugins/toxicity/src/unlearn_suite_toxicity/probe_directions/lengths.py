"""Two classes with the same histogram of token lengths: what differs between them is then not the length."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from unlearn_suite import Example

EXACT = 16
"""up to so many tokens each length is a bin of its own; above, bins are a quarter of an octave or less wide"""


def same_lengths(
    toxic: Sequence[Example], benign: Sequence[Example], tokenizer: Any
) -> tuple[list[Example], list[Example]]:
    """As many texts of one class as of the other in every bin of token lengths, chosen by hash, in their order."""
    by_bin: dict[int, tuple[list[Example], list[Example]]] = {}
    for label, examples in enumerate((toxic, benign)):
        for example in examples:
            count = len(tokenizer(example.text, add_special_tokens=False)["input_ids"])
            by_bin.setdefault(bin_of(count), ([], []))[label].append(example)
    kept: tuple[set[str], set[str]] = (set(), set())
    for pair in by_bin.values():
        size = min(map(len, pair))
        for label, examples in enumerate(pair):
            kept[label].update(e.id for e in sorted(examples, key=_hash)[:size])
    return [e for e in toxic if e.id in kept[0]], [e for e in benign if e.id in kept[1]]


def bin_of(tokens: int) -> int:
    """The histogram's bin of a length."""
    return tokens if tokens <= EXACT else EXACT + 1 + math.floor(4 * math.log2(tokens / EXACT))


def _hash(example: Example) -> bytes:
    return hashlib.sha256(example.id.encode()).digest()
