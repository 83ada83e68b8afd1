"""Failure detectors: cheap readings on fixed text that tell a stage that goes wrong from one that does its work."""

from __future__ import annotations

from .metrics import Entry, Metrics
from .monitor import Monitor

__all__ = ["Entry", "Metrics", "Monitor"]
