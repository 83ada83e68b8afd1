"""unlearn-suite: unlearning problems, objectives and evaluations for language models.

These are the public names; plugins import nothing else. The names that need torch load it on first use,
so `import unlearn_suite` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import PlanError, PluginError, PrerequisiteError, SuiteError, TrainingError
from .hookspecs import HOOK_API, hookimpl
from .specs import (
    AttackConfig,
    AttackPoint,
    AttackSpec,
    Config,
    DatasetSpec,
    Example,
    MetricSpec,
    NoConfig,
    ObjectiveSpec,
    ProblemSpec,
    ValueSpec,
)

if TYPE_CHECKING:
    from .builtin import records
    from .engine import losses
    from .engine.attack import Attack, AttackContext
    from .engine.batch import Batch
    from .engine.context import StageContext
    from .engine.objective import Loss, LossObjective, Objective, Requirements, Scalars
    from .engine.shape import ModelShape
    from .engine.views import View
    from .evaluate.examples import token_scores
    from .evaluate.metric import EvalModel, Metric, Row
    from .evaluate.reference import reference_model
    from .evaluate.scorer import TokenScores
    from .evaluate.text import TEXT_STATISTICS, text_statistics

__version__ = "0.1.0"

_LAZY = {
    "Attack": "engine.attack",
    "AttackContext": "engine.attack",
    "Batch": "engine.batch",
    "EvalModel": "evaluate.metric",
    "Loss": "engine.objective",
    "LossObjective": "engine.objective",
    "Metric": "evaluate.metric",
    "ModelShape": "engine.shape",
    "Objective": "engine.objective",
    "Requirements": "engine.objective",
    "Row": "evaluate.metric",
    "TEXT_STATISTICS": "evaluate.text",
    "Scalars": "engine.objective",
    "StageContext": "engine.context",
    "TokenScores": "evaluate.scorer",
    "View": "engine.views",
    "reference_model": "evaluate.reference",
    "text_statistics": "evaluate.text",
    "token_scores": "evaluate.examples",
}

_MODULES = {"losses": ".engine.losses", "records": ".builtin.records"}

__all__ = [
    "HOOK_API",
    "TEXT_STATISTICS",
    "Attack",
    "AttackConfig",
    "AttackContext",
    "AttackPoint",
    "AttackSpec",
    "Batch",
    "Config",
    "DatasetSpec",
    "EvalModel",
    "Example",
    "Loss",
    "LossObjective",
    "Metric",
    "MetricSpec",
    "ModelShape",
    "NoConfig",
    "Objective",
    "ObjectiveSpec",
    "PlanError",
    "PluginError",
    "PrerequisiteError",
    "ProblemSpec",
    "Requirements",
    "Row",
    "Scalars",
    "StageContext",
    "SuiteError",
    "TokenScores",
    "TrainingError",
    "ValueSpec",
    "View",
    "__version__",
    "hookimpl",
    "losses",
    "records",
    "reference_model",
    "text_statistics",
    "token_scores",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name], __name__)
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
