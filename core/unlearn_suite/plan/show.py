"""A resolved plan as YAML again: every default written out, and itself a plan that loads."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import yaml

from .model import Arm, AttackUse, DataUse, Gate, Limit, MetricUse, Plan, Problem, Shipped, Stage
from .text import add_resolvers


class _Dumper(yaml.SafeDumper):
    """Quotes what either YAML 1.1 or 1.2 would not read back as text; writes short lists on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


add_resolvers(_Dumper)


def _sequence(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    simple = not any(isinstance(item, dict | list) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=simple)


_Dumper.add_representer(list, _sequence)


def dump_resolved(plan: Plan) -> str:
    """The plan with nothing left to default. Loading the text again gives the same cells."""
    return yaml.dump(resolved(plan), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def resolved(plan: Plan) -> dict[str, Any]:
    """The same as plain JSON-able data."""
    taken = {arm.stages for arm in plan.arms if not isinstance(arm.stages, tuple)}
    shown: dict[str, Any] = {"plan": 1, "name": plan.name}
    if plan.plugins:
        shown["plugins"] = [str(file) for file in plan.plugins]
    shown["seeds"] = list(plan.seeds)
    shown["models"] = {model.label: dict(model.ref) for model in plan.models}
    shown["problems"] = [_problem(problem, taken) for problem in plan.problems]
    shown["arms"] = {arm.name: _arm(arm) for arm in plan.arms}
    if plan.attacks:
        shown["attacks"] = [_attack(attack) for attack in plan.attacks]
    shown["compute"] = plan.compute.model_dump(mode="json")
    if plan.gates:
        shown["expect"] = [{"problem": gate.problem, "arm": gate.arm, **_limit(gate)} for gate in plan.gates]
    return shown


def _problem(problem: Problem, taken: Collection[Shipped]) -> dict[str, Any]:
    """With the stages of it that arms take."""
    shown: dict[str, Any] = {"name": problem.label, "summary": problem.summary}
    shown["data"] = {role: _data(uses) for role, uses in problem.data.items()}
    shown["metrics"] = [_metric(metric) for metric in problem.metrics]
    if problem.expect:
        shown["expect"] = [_limit(limit) for limit in problem.expect]
    if problem.chat:
        shown["chat"] = True
    if problem.start:
        shown["start"] = {"stages": _stages(problem.start)}
    if problem.default is not None and "default" in taken:
        shown["default"] = {"stages": _stages(problem.default)}
    if problem.oracle is not None and "oracle" in taken:
        shown["oracle"] = {"stages": _stages(problem.oracle)}
    return shown


def _data(uses: tuple[DataUse, ...]) -> Any:
    shown = [{"use": use.entry.qualified, "with": use.config.model_dump(mode="json")} for use in uses]
    return shown[0] if len(shown) == 1 else shown


def _metric(metric: MetricUse) -> dict[str, Any]:
    return {
        "name": metric.name,
        "use": metric.entry.qualified,
        **({"data": metric.data} if metric.data is not None else {}),
        "with": metric.config.model_dump(mode="json"),
        "want": metric.want,
        "show": list(metric.show),
    }


def _limit(limit: Limit | Gate) -> dict[str, Any]:
    told = {key: getattr(limit, key) for key in ("metric", "value", "of", "below", "above")}
    return {key: value for key, value in told.items() if value is not None}


def _attack(attack: AttackUse) -> dict[str, Any]:
    return {
        "name": attack.name,
        "use": attack.entry.qualified,
        "with": attack.config.model_dump(mode="json"),
        **({"scores": list(attack.scores)} if attack.scores is not None else {}),
        **({"only": list(attack.only)} if attack.only is not None else {}),
    }


def _arm(arm: Arm) -> dict[str, Any]:
    shown: dict[str, Any] = {"from": arm.begin} if arm.begin else {}
    shown["stages"] = _stages(arm.stages) if isinstance(arm.stages, tuple) else arm.stages
    if arm.only is not None:
        shown["only"] = list(arm.only)
    return shown | ({"family": arm.family} if arm.family else {})


def _stages(stages: Iterable[Stage]) -> list[dict[str, Any]]:
    return [
        {
            "use": stage.entry.qualified,
            **stage.train.model_dump(mode="json"),
            "with": stage.config.model_dump(mode="json"),
        }
        for stage in stages
    ]
