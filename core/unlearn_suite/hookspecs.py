"""The hooks a plugin may implement. `register_*` bring things in; `on_*` watch a run.

To retire an argument, mark its hook `@hookspec(warn_on_impl_args={"name": DeprecationWarning("use ...")})`; to retire a
hook, `@hookspec(warn_on_impl=DeprecationWarning("use ..."))`. The plugins that still use it then say so in
`unlearn-suite plugins list`, for at least one minor release before it goes.

Each `register_*` hook receives `register`, a callable that takes one spec, so that a bad spec fails on
the plugin author's own line. Observer hooks must not change what they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pluggy

from .specs import AttackSpec, DatasetSpec, MetricSpec, ObjectiveSpec, ProblemSpec

HOOK_API = 2
"""version of these hooks: grows when one is added or changes; a plugin for an older one still loads"""
PROJECT = "unlearn_suite"
ENTRY_POINT_GROUP = "unlearn_suite"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_objectives(register: Callable[[ObjectiveSpec], None]) -> None:
    """Register unlearning objectives."""


@hookspec
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Register datasets."""


@hookspec
def register_metrics(register: Callable[[MetricSpec], None]) -> None:
    """Register metrics."""


@hookspec
def register_problems(register: Callable[[ProblemSpec], None]) -> None:
    """Register unlearning problems (packaged plan fragments)."""


@hookspec
def register_attacks(register: Callable[[AttackSpec], None]) -> None:
    """Register attacks on unlearned models."""


@hookspec
def on_run_start(run: Mapping[str, Any]) -> None:
    """A run begins. `run` is the content of run.json."""


@hookspec
def on_cell_start(cell: Mapping[str, Any]) -> None:
    """A cell begins. `cell` is the content of cell.json."""


@hookspec
def on_scalars(cell: Mapping[str, Any], step: int, scalars: Mapping[str, float]) -> None:
    """The objective reported its scalars of one step."""


@hookspec
def on_scores(cell: Mapping[str, Any], metric: str, rows: list[Mapping[str, Any]]) -> None:
    """A metric entry of the cell has been scored; under an attack it is called ENTRY@ATTACK STRENGTH,STEPS."""


@hookspec
def on_cell_end(cell: Mapping[str, Any], status: Mapping[str, Any]) -> None:
    """A cell ended: done, failed or interrupted. `status` is the content of status.json."""


@hookspec
def on_run_end(run: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """The run ended. `summary` is the content of results/summary.json."""
