"""Room 4: cells -> processes. What is done stays done; everything else is one command away."""

from __future__ import annotations

from .cell import as_json, as_suite_error
from .contracts import Outcome
from .progress import NoProgress, PlainProgress, Progress, make_progress
from .record import RecordProgress, follow_parent
from .run import run_cells
from .signals import stop_on_signals

__all__ = [
    "NoProgress",
    "Outcome",
    "PlainProgress",
    "Progress",
    "RecordProgress",
    "as_json",
    "as_suite_error",
    "follow_parent",
    "make_progress",
    "run_cells",
    "stop_on_signals",
]
