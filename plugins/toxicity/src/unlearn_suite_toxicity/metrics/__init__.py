"""The toxicity metric."""

from __future__ import annotations

from unlearn_suite import MetricSpec

from . import toxicity


def toxicity_spec() -> MetricSpec:
    """The spec to register."""
    return toxicity.SPEC
