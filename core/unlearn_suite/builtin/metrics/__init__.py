"""Metrics that every installation has."""

from __future__ import annotations

from ...specs import MetricSpec
from . import cloze, generations, harness, multiple_choice, perplexity


def metric_specs() -> list[MetricSpec]:
    """The specs, in the order in which they are listed."""
    return [cloze.SPEC, multiple_choice.SPEC, perplexity.SPEC, generations.SPEC, harness.SPEC]
