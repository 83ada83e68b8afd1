"""Scalars that tell what a step cost: no result of it, and never the same twice."""

from __future__ import annotations

WORDS = {"seconds", "flops"}


def is_cost(name: str) -> bool:
    """Whether one of `WORDS` is in a scalar's name, as in "attack_seconds"."""
    return not WORDS.isdisjoint(name.split("_"))
