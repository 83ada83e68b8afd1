"""Why something is not in an estimate, or not for certain, in the words of its notes."""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import SuiteError

_DOUBTFUL = 0.05
"""share of a peak that may be a guess without a note"""


def reason_of(error: Exception) -> str:
    """One line."""
    reason = error.message if isinstance(error, SuiteError) else f"{type(error).__name__}: {error}"
    return " ".join(str(reason).split())[:120]


def doubts(share: float, name: str) -> Iterator[str]:
    """About the memory of `name`, of whose peak this share is a guess."""
    if share > _DOUBTFUL:
        yield f"{share:.0%} of the memory of {name} grows with the model in a way that is guessed"
