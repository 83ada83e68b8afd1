"""Room 4: cells -> processes. What is done stays done; everything else is one command away."""

from __future__ import annotations

from .contracts import Outcome
from .progress import NoProgress, PlainProgress, Progress, make_progress
from .record import RecordProgress, follow_parent
from .run import run_cells

__all__ = [
    "NoProgress",
    "Outcome",
    "PlainProgress",
    "Progress",
    "RecordProgress",
    "follow_parent",
    "make_progress",
    "run_cells",
]
