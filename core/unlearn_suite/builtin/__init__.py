"""The datasets, metrics and the one objective that every installation has."""

from __future__ import annotations

from collections.abc import Callable

from ..hookspecs import hookimpl
from ..specs import DatasetSpec, MetricSpec, ObjectiveSpec


@hookimpl
def register_objectives(register: Callable[[ObjectiveSpec], None]) -> None:
    from . import finetuning

    register(finetuning.SPEC)


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    from . import datasets, general_text

    for spec in (*datasets.specs(), general_text.spec()):
        register(spec)


@hookimpl
def register_metrics(register: Callable[[MetricSpec], None]) -> None:
    from .metrics import metric_specs

    for spec in metric_specs():
        register(spec)
