"""Metrics that every installation has."""

from __future__ import annotations

from ...specs import MetricSpec
from . import (
    cloze,
    fluency,
    generations,
    harmonic_mean,
    harness,
    multiple_choice,
    pairs,
    perplexity,
    robust_choice,
    rouge,
)


def metric_specs() -> list[MetricSpec]:
    """The specs, in the order in which they are listed."""
    return [
        cloze.SPEC,
        multiple_choice.SPEC,
        robust_choice.SPEC,
        pairs.SPEC,
        perplexity.SPEC,
        generations.SPEC,
        fluency.SPEC,
        rouge.SPEC,
        harness.SPEC,
        harmonic_mean.SPEC,
    ]
