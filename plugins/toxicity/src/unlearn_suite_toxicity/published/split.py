"""A fixed split by the hash of a text, and an order by it in which every beginning is a fair sample."""

from __future__ import annotations

from typing import Literal

from unlearn_suite import records

Part = Literal["train", "test", "all"]
TRAIN_SHARE = 0.6


def place(version: str, text: str) -> float:
    """Where a text stands in the order of its set, 0 to 1. Spaces and case do not count."""
    return records.share(version, " ".join(text.split()).casefold())


def taken(at: float, part: Part) -> bool:
    """Whether a text at this place belongs to the part: train 60 %, test 40 %."""
    return part == "all" or (at < TRAIN_SHARE) == (part == "train")
