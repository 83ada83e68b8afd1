"""Room 1: text -> `Plan`, or every error at once with its place."""

from __future__ import annotations

from .load import load_plan
from .model import Arm, DataUse, Gate, MetricUse, Model, Plan, Problem, Stage
from .schema import plan_schema
from .show import dump_resolved, resolved

__all__ = [
    "Arm",
    "DataUse",
    "Gate",
    "MetricUse",
    "Model",
    "Plan",
    "Problem",
    "Stage",
    "dump_resolved",
    "load_plan",
    "plan_schema",
    "resolved",
]
