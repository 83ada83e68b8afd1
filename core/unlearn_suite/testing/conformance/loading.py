"""Checks of a plugin as a distribution: it loads alone, quickly and quietly, and its metadata tell the truth."""

from __future__ import annotations

import difflib
import inspect
import sys
from importlib.metadata import Distribution, distribution
from types import ModuleType
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ... import __version__
from ...plugins.hooks import HOOKS
from ...plugins.source import HOST
from .check import CheckFailed, Skipped, check
from .fresh import answer_of
from .subject import Subject

FIELDS = ("Summary", "Requires-Python")


@check("LOAD-OK", "plugin", "the host loads it, with nothing to remark")
def loads(subject: Subject) -> None:
    report = subject.report
    if not report.ok:
        place = f" ({report.where})" if report.where else ""
        raise CheckFailed(f"it is {report.status}: {report.message}{place}; {report.action}")


@check("LOAD-ALONE", "plugin", "it loads in a process that loads no other plugin")
def loads_alone(subject: Subject) -> None:
    answer = answer_of(subject)
    if answer["status"] != "ok":
        raise CheckFailed(f"alone it is {answer['status']}: {answer['message']} {answer['where']}".rstrip())


@check("LOAD-LIGHT", "plugin", "importing it imports no torch and nothing else that is slow")
def loads_lightly(subject: Subject) -> None:
    if not _is_distribution(subject):
        raise Skipped("it is a single file, which is loaded only where it is asked for")
    if heavy := answer_of(subject)["heavy"]:
        hint = "import it in the functions that need it"
        raise CheckFailed(f"importing it imports {', '.join(heavy)}; {hint}")


@check("LOAD-FAST", "plugin", "importing it takes less CPU time than Python and the host together")
def loads_fast(subject: Subject) -> None:
    if not _is_distribution(subject):
        raise Skipped("it is a single file, which is loaded only where it is asked for")
    answer = answer_of(subject)
    if answer["seconds"] > answer["host_seconds"]:
        raise CheckFailed(f"loading it takes {answer['seconds']:.2f} s, the host {answer['host_seconds']:.2f} s")


@check("LOAD-QUIET", "plugin", "it prints nothing while it is loaded")
def loads_quietly(subject: Subject) -> None:
    printed = [note for note in answer_of(subject)["notes"] if note.startswith("prints")]
    if printed:
        raise CheckFailed(f"it {printed[0]}")


@check("LOAD-HOOKS", "plugin", "no function looks like a hook without being one")
def hooks_are_hooks(subject: Subject) -> None:
    for module in _modules(subject):
        for name, function in vars(module).items():
            if not inspect.isfunction(function) or function.__module__ != module.__name__ or name in HOOKS:
                continue
            near = difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.85)
            if near and not name.startswith("_"):
                line = function.__code__.co_firstlineno
                raise CheckFailed(f"{module.__file__}:{line}: {name!r} is no hook; did you mean {near[0]!r}?")


def _modules(subject: Subject) -> list[ModuleType]:
    """The module the entry point names, or that of the file."""
    target = subject.report.target
    if not _is_distribution(subject):
        return [m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == target]
    module = sys.modules.get(target.partition(":")[0])
    return [module] if module else []


def _is_distribution(subject: Subject) -> bool:
    return not any(str(root) == subject.report.target for root in subject.report.roots)


def _distribution(subject: Subject) -> Distribution:
    if not _is_distribution(subject):
        raise Skipped("it is a single file, not a distribution")
    return distribution(subject.report.distribution)


@check("LOAD-BOUND", "plugin", "it says which versions of unlearn-suite it works with, with an upper bound")
def requirement_is_bounded(subject: Subject) -> None:
    found = _distribution(subject)
    if canonicalize_name(subject.report.distribution) == HOST:
        raise Skipped("it is part of unlearn-suite itself")
    wanted = [r for line in found.requires or () if canonicalize_name((r := Requirement(line)).name) == HOST]
    if not wanted:
        raise CheckFailed(f'its dependencies do not name unlearn-suite; add "{_bounds()}"')
    for requirement in wanted:
        if not any(part.operator in ("<", "<=", "~=", "==") for part in requirement.specifier):
            raise CheckFailed(f'{str(requirement)!r} has no upper bound; write "{_bounds()}"')


def _bounds() -> str:
    major, minor = __version__.split(".")[:2]
    return f"{HOST}>={major}.{minor},<{major}.{int(minor) + 1}"


@check("LOAD-META", "plugin", "its metadata have a summary, a licence, a readme and the Python versions")
def metadata_are_there(subject: Subject) -> None:
    metadata: Any = _distribution(subject).metadata
    missing = [name for name in FIELDS if not metadata.get(name)]
    if not any(metadata.get(name) for name in ("License-Expression", "License")):
        missing.append("License-Expression")
    if not (metadata.get("Description") or metadata.get_payload()):
        missing.append("readme")
    if missing:
        raise CheckFailed(f"its metadata lack {', '.join(missing)}: add them to [project] in pyproject.toml")
