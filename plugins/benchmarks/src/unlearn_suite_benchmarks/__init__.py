"""The field's unlearning benchmarks as problems. A folder is one of them; its `SPECS` are what it registers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TypeVar

from unlearn_suite import DatasetSpec, MetricSpec, ProblemSpec, hookimpl

FAMILIES: tuple[str, ...] = (
    # one line each, sorted
    "memorisation",
    "muse",
    "pii",
    "rwku",
    "stereotypes",
    "tofu",
)

Spec = DatasetSpec | MetricSpec | ProblemSpec
S = TypeVar("S", DatasetSpec, MetricSpec, ProblemSpec)


def _specs(kind: type[S]) -> Iterator[S]:
    for family in FAMILIES:
        yield from (spec for spec in import_module(f"{__name__}.{family}").SPECS if isinstance(spec, kind))


@hookimpl
def register_datasets(register: Callable[[Spec], None]) -> None:
    for spec in _specs(DatasetSpec):
        register(spec)


@hookimpl
def register_metrics(register: Callable[[Spec], None]) -> None:
    for spec in _specs(MetricSpec):
        register(spec)


@hookimpl
def register_problems(register: Callable[[Spec], None]) -> None:
    for spec in _specs(ProblemSpec):
        register(spec)
