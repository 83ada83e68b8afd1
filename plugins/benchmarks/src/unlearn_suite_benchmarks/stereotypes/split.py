"""A fixed split by the hash of the stereotype sentence: train 60 %, test 40 %."""

from __future__ import annotations

from typing import Literal

from unlearn_suite import records

Part = Literal["train", "test", "all"]


def place(sentence: str) -> float:
    """Where a sentence stands in the order of its set, 0 to 1. Spaces and case do not count."""
    return records.share("stereotypes 1", " ".join(sentence.split()).casefold())


def taken(at: float, part: Part) -> bool:
    """Whether a sentence at this place belongs to the part."""
    return part == "all" or (at < 0.6) == (part == "train")
