"""Checks of problems: the fragment resolves, its roles yield examples, and what is forgotten is not kept as well."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...plan import Problem, load_plan
from ...plugins import load_target
from ...specs import Example
from .check import CheckFailed, Skipped, check
from .datasets import fault_of
from .subject import Subject


def _problem(subject: Subject) -> Problem:
    """The problem, resolved as a plan would. Raises `PlanErrors` at the places of the fragment."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.yaml"
        assert subject.entry is not None
        path.write_text(f"plan: 1\nproblems: [{subject.entry.qualified}]\n", encoding="utf-8")
        return load_plan(path, subject.catalog).problems[0]


def _roles(subject: Subject) -> Mapping[str, list[Example]]:
    key = ("roles", subject.spec.name)
    if key not in subject.memo:
        subject.memo[key] = {
            role: [example for use in uses for example in load_target(use.spec.load)(use.config)]
            for role, uses in _problem(subject).data.items()
        }
    found: Mapping[str, list[Example]] = subject.memo[key]
    return found


@check("PROB-RESOLVES", "problem", "its fragment is a valid part of a plan, with a default arm and a metric")
def resolves(subject: Subject) -> None:
    if not _problem(subject).metrics:
        raise CheckFailed("it measures nothing: add `metrics`")


@check("PROB-ROLES", "problem", "every role yields valid examples")
def roles_are_filled(subject: Subject) -> None:
    for role, examples in _roles(subject).items():
        if fault := fault_of(examples):
            raise CheckFailed(f"role {role!r}: {fault}")


@check("PROB-DISJOINT", "problem", "no text is both forgotten and kept")
def forget_and_retain_are_disjoint(subject: Subject) -> None:
    roles = _roles(subject)
    if not {"forget", "retain"} <= set(roles):
        raise Skipped("it has not both roles, forget and retain")
    kept = {(e.prompt, e.text) for e in roles["retain"]}
    both = [e for e in roles["forget"] if (e.prompt, e.text) in kept]
    if both:
        raise CheckFailed(f"{len(both)} examples are in forget and in retain, such as {both[0].id!r}")
