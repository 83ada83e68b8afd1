"""A plan file -> a resolved `Plan`, or `PlanErrors` with everything that is wrong in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from .arms import read_arms, wanted_from_problems
from .attacks import read_attacks
from .check import check, existing
from .cross import check_gates, check_roles, check_shipped, oracle_notes
from .faults import Faults, suggest
from .fragments import ProblemReader
from .grammar import LABEL, Compute, ModelWords, PlanWords
from .model import CatalogLike, Model, Plan, Problem
from .resolve import Resolver
from .text import Node, read_yaml

DEFAULT_MODEL = Model("smol", {"asset": "smollm2-135m-instruct"})
CatalogSource = CatalogLike | Callable[[Sequence[Path]], CatalogLike]


def load_plan(path: Path, catalog: CatalogSource, *, assets: Collection[str] | None = None) -> Plan:
    """Read, check and resolve a plan.

    `catalog` may be a function that makes the catalog from the plan's own plugin files. `assets` are the
    names of the model registry; None leaves asset names unchecked. Raises PlanErrors.
    """
    faults = Faults()
    root = read_yaml(path, faults)
    plan = _resolve(path, root, catalog, assets, faults) if root else None
    faults.stop(str(path))
    assert plan is not None, "a plan that cannot be resolved has faults"
    return plan


def _resolve(
    path: Path, root: Node, catalog: CatalogSource, assets: Collection[str] | None, faults: Faults
) -> Plan | None:
    words = check(root, PlanWords, faults)
    if not root.map:
        return None
    plugins = _plugin_files(root, faults)
    resolver = Resolver(catalog(plugins) if callable(catalog) else catalog, faults)
    models = _models(root.under("models"), assets, faults)
    _check_labels(root, faults)
    problems, labels = _problems(root, resolver)
    arms = read_arms(root.under("arms"), resolver, labels, problems)
    check_shipped(problems, arms, faults)
    check_roles(problems, arms, faults)
    attacks = read_attacks(root.under("attacks"), resolver, labels, problems)
    gates = check_gates(root, problems, labels, arms, faults)
    return Plan(
        name=(words.name if words else None) or re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).lstrip("-._") or "plan",
        path=path.resolve(),
        seeds=tuple(words.seeds if words else ()),
        models=models,
        problems=problems,
        arms=arms,
        compute=words.compute if words else Compute(),
        gates=gates,
        plugins=tuple(plugins),
        attacks=attacks,
        notes=(*resolver.notes, *oracle_notes(problems, arms)),
    )


def _plugin_files(root: Node, faults: Faults) -> list[Path]:
    node = root.under("plugins")
    items = [item for item in (node.items if node else []) if isinstance(item.value, str)]
    return [existing(Path(str(item.value)), item, faults) for item in items]


def _models(node: Node | None, assets: Collection[str] | None, faults: Faults) -> tuple[Model, ...]:
    if node is None or node.value is None:
        return (DEFAULT_MODEL,)
    models = []
    for label, child in node.map.items():
        words = check(child, ModelWords, faults)
        if words is None:
            continue
        ref = words.model_dump(exclude_none=True, exclude_defaults=True)
        if words.path is not None:
            ref["path"] = str(existing(Path(words.path), child.map["path"], faults))
        if words.asset is not None and assets is not None and words.asset not in assets:
            hint = suggest(words.asset, assets, all_of_them="known assets")
            at = child.map["asset"].at
            faults.add(at, f"there is no model asset {words.asset!r}", "plan-asset", hint)
        models.append(Model(label, ref))
    return tuple(models)


def _check_labels(root: Node, faults: Faults) -> None:
    """Labels become parts of folder names."""
    for section in ("models", "arms"):
        node = root.under(section)
        for label, child in (node.map if node else {}).items():
            if not re.match(LABEL, label):
                message = f"{label!r} cannot be a label: use up to 64 letters, digits, '-', '_' and '.'"
                faults.add(child.key_or_value, message, "plan-label")


def _problems(root: Node, resolver: Resolver) -> tuple[tuple[Problem, ...], list[str]]:
    """The problems that could be resolved, and the labels of all that the plan speaks of."""
    node, extra = root.under("problems"), root.under("metrics")
    arms = root.under("arms")
    reader = ProblemReader(resolver, extra.items if extra else [], wanted=wanted_from_problems(arms))
    problems, labels = [], []
    for child in node.items if node else []:
        label = _problem_label(child)
        if label and label in labels:
            message = f"there are two problems called {label!r}"
            resolver.faults.add(child.at, message, "plan-problem", "give one another label with `as`")
        labels.append(label)
        problem = reader.read(child)
        if problem is None:
            continue
        problems.append(problem)
        if (arms is None or arms.value is None) and problem.default is None and not len(resolver.faults):
            message = f"problem {label!r} brings no default arm"
            resolver.faults.add(child.at, message, "plan-arm", "write `arms` into the plan")
    return tuple(problems), labels


def _problem_label(node: Node) -> str:
    """The label a problem will have, as far as its text tells."""
    named = node.under("as") or node.under("name") or node.under("use") or node
    return str(named.value).rpartition("/")[2] if isinstance(named.value, str) else ""
