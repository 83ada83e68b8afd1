"""Checks of problems: the fragment resolves, its roles yield examples, and what is forgotten is not kept as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...plan import Arm, Problem
from ...plan.cross import check_roles
from ...plan.faults import Faults
from ...plan.fragments import ProblemReader
from ...plan.model import SHIPPED
from ...plan.resolve import Resolver
from ...plan.text import Node
from ...plugins import load_target
from ...specs import Example
from .check import CheckFailed, Skipped, check
from .datasets import fault_of
from .subject import Subject


def _problems(subject: Subject) -> Iterator[Problem]:
    """The problem, resolved as a plan would, with the options of each case of the sheet.

    Raises `PlanErrors` at the places of the sheet and of the problem's file.
    """
    assert subject.entry is not None
    for case in subject.cases():
        faults = Faults()
        words = {"use": Node(subject.entry.qualified, case.at, case.at, case.folder)}
        words |= {key: node for key, node in case.map.items() if key in ("with", "data")}
        reader = ProblemReader(Resolver(subject.catalog, faults), [], wanted=SHIPPED)
        problem = reader.read(Node(words, case.at, None, case.folder))
        found = (problem,) if problem else ()
        check_roles(found, [Arm(word, word) for word in SHIPPED], faults)
        faults.stop(case.at.file)
        yield from found


def _roles(subject: Subject) -> list[Mapping[str, list[Example]]]:
    """For each case of the sheet: role -> examples."""
    key = ("roles", subject.spec.name)
    if key not in subject.memo:
        subject.memo[key] = [
            {
                role: [example for use in uses for example in load_target(use.spec.load)(use.config)]
                for role, uses in problem.data.items()
            }
            for problem in _problems(subject)
        ]
    found: list[Mapping[str, list[Example]]] = subject.memo[key]
    return found


@check("PROB-RESOLVES", "problem", "its fragment is a valid part of a plan, with a default arm and a metric")
def resolves(subject: Subject) -> None:
    for problem in _problems(subject):
        if problem.default is None:
            raise CheckFailed("it brings no default arm: add `default`")
        if not problem.metrics:
            raise CheckFailed("it measures nothing: add `metrics`")


@check("PROB-ROLES", "problem", "every role yields valid examples")
def roles_are_filled(subject: Subject) -> None:
    for roles in _roles(subject):
        for role, examples in roles.items():
            if fault := fault_of(examples):
                raise CheckFailed(f"role {role!r}: {fault}")


@check("PROB-DISJOINT", "problem", "no text is both forgotten and kept")
def forget_and_retain_are_disjoint(subject: Subject) -> None:
    for roles in _roles(subject):
        if not {"forget", "retain"} <= set(roles):
            raise Skipped("it has not both roles, forget and retain")
        kept = {(e.prompt, e.text) for e in roles["retain"]}
        both = [e for e in roles["forget"] if (e.prompt, e.text) in kept]
        if both:
            raise CheckFailed(f"{len(both)} examples are in forget and in retain, such as {both[0].id!r}")
