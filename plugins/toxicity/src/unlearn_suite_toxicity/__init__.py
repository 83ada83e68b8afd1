"""The everyday-toxicity problem, its data and metric, and the objective for removing toxicity."""

from __future__ import annotations

from collections.abc import Callable

from unlearn_suite import DatasetSpec, MetricSpec, ObjectiveSpec, ProblemSpec, hookimpl

from . import metrics, published
from .data import ToxicityDataConfig
from .probe_directions import config as probe_directions


@hookimpl
def register_objectives(register: Callable[[ObjectiveSpec], None]) -> None:
    register(probe_directions.SPEC)


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    register(
        DatasetSpec(
            name="everyday-toxicity",
            summary="Hostile everyday prompts with a toxic and a benign continuation, and neutral prompts",
            load="unlearn_suite_toxicity.data:load",
            fingerprint="unlearn_suite_toxicity.data:fingerprint",
            config=ToxicityDataConfig,
            licence="Apache-2.0",
            source="written for this project",
            size="240 hostile prompts with two continuations each, 100 neutral ones with one",
        )
    )
    for spec in published.DATASETS:
        register(spec)


@hookimpl
def register_metrics(register: Callable[[MetricSpec], None]) -> None:
    register(metrics.toxicity_spec())


@hookimpl
def register_problems(register: Callable[[ProblemSpec], None]) -> None:
    register(
        ProblemSpec(
            name="everyday-toxicity",
            summary="Stop continuing hostile prompts with insults; keep fluency and plain English",
            fragment="unlearn_suite_toxicity:problems/everyday-toxicity.yaml",
        )
    )
    for spec in published.PROBLEMS:
        register(spec)
