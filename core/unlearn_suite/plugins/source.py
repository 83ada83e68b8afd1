"""Where plugins come from: entry points of installed distributions, and single files."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, EntryPoint, distribution, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .. import __version__
from ..hookspecs import ENTRY_POINT_GROUP
from .frames import package_roots

HOST = "unlearn-suite"
ALLOW_VARIABLE = "UNLEARN_SUITE_PLUGINS"


@dataclass(frozen=True)
class Candidate:
    """A plugin that has not been loaded. `load` may raise anything.

    `needs` is what it declares of the host ("" when nothing, or when we satisfy it).
    """

    distribution: str
    version: str
    entry_point: str
    target: str
    load: Callable[[], Any]
    roots: tuple[Path, ...]
    needs: str = ""
    is_file: bool = False
    off: bool = False
    """installed, and not to be loaded"""
    action: str = ""
    """what to do when it cannot be loaded ("" = what the failure suggests)"""


def installed() -> list[Candidate]:
    """One candidate per entry point of our group, by (distribution, entry point), and one per name of
    $UNLEARN_SUITE_PLUGINS that nothing has."""
    candidates = [candidate for found in _distributions() for candidate in _of_distribution(found)]
    return sorted(mark_allowed(candidates), key=lambda candidate: (candidate.distribution, candidate.entry_point))


def allow_list() -> list[str] | None:
    """The names in $UNLEARN_SUITE_PLUGINS (separated by commas); None when it is not set."""
    told = os.environ.get(ALLOW_VARIABLE)
    return None if told is None else [name.strip() for name in told.split(",") if name.strip()]


def mark_allowed(candidates: list[Candidate]) -> list[Candidate]:
    """All but the allowed candidates switched off, and one that cannot be loaded for each name that is none's.

    A name is a distribution's, an entry point's, or both with a colon between them. The host's own general datasets
    and metrics are always on.
    """
    names = allow_list()
    if names is None:
        return candidates
    wanted = {canonicalize_name(name) for name in names}
    known = {name for candidate in candidates for name in _names(candidate)}
    chosen = [
        candidate if _names(candidate) & wanted or _is_builtin(candidate) else replace(candidate, off=True)
        for candidate in candidates
    ]
    return chosen + [_absent(name) for name in names if canonicalize_name(name) not in known]


def _names(candidate: Candidate) -> set[str]:
    distribution, point = candidate.distribution, candidate.entry_point
    return {canonicalize_name(name) for name in (distribution, point, f"{distribution}:{point}")}


def _is_builtin(candidate: Candidate) -> bool:
    return (candidate.distribution, candidate.entry_point) == (HOST, "builtin")


def _absent(name: str) -> Candidate:
    def refuse() -> Any:
        raise LookupError(f"{ALLOW_VARIABLE} names it, and no such plugin is installed")

    action = f"pip install {name}, or correct {ALLOW_VARIABLE}"
    return Candidate(name, "", "-", name, refuse, (), action=action)


def _distributions() -> Iterator[Distribution]:
    """Distributions that have entry points of our group, each name once: the one that an import would find."""
    seen: set[str] = set()
    for found in distributions():
        try:
            if ENTRY_POINT_GROUP not in (found.read_text("entry_points.txt") or ""):
                continue  # nearly all of them: metadata is slow to read
            name = canonicalize_name(found.metadata["Name"])
            if name not in seen:
                seen.add(name)
                yield distribution(name)
        except Exception:
            continue  # the leftovers of an interrupted uninstall have no readable metadata


def _of_distribution(found: Distribution) -> Iterator[Candidate]:
    name, version = canonicalize_name(found.metadata["Name"]), found.version
    try:
        points = list(found.entry_points.select(group=ENTRY_POINT_GROUP))
    except Exception as error:
        told = str(error)

        def refuse() -> Any:
            raise ValueError(f"its entry_points.txt cannot be read: {told}")

        yield Candidate(name, version, "?", "entry_points.txt", refuse, ())
        return
    for point in points:
        yield _of_entry_point(name, version, point, unmet_requirement(found))


def _of_entry_point(name: str, version: str, point: EntryPoint, needs: str) -> Candidate:
    roots = package_roots(point.value.partition("[")[0].partition(":")[0].strip())
    return Candidate(name, version, point.name, point.value, point.load, roots, needs)


def unmet_requirement(found: Distribution) -> str:
    """The version specifier that a distribution declares for the host, when our version does not meet it."""
    if canonicalize_name(found.metadata["Name"]) == HOST:
        return ""
    for line in found.requires or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if canonicalize_name(requirement.name) != HOST:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(__version__, prereleases=True):
            return str(requirement.specifier)
    return ""


def from_files(files: Sequence[Path]) -> list[Candidate]:
    """One candidate per plugin file, each file once."""
    unique = dict.fromkeys(Path(file).expanduser().resolve() for file in files)
    return [_of_file(path) for path in unique]


def _of_file(path: Path) -> Candidate:
    try:
        source = path.read_bytes()
    except OSError as error:
        told = OSError(error.strerror or str(error))

        def refuse() -> Any:
            raise told

        return Candidate(path.stem, "", path.name, str(path), refuse, (path,), is_file=True)
    version = hashlib.sha256(source).hexdigest()[:12]
    return Candidate(path.stem, version, path.name, str(path), lambda: _execute(path, source), (path,), is_file=True)


def _execute(path: Path, source: bytes) -> ModuleType:
    """Run a plugin file as a module whose name no other file has.

    The very bytes that were hashed are run (never a stale .pyc), so that the version tells the code.
    """
    identity = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()[:16]
    name = f"unlearn_suite_file_{identity}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses, pydantic and load_target look it up there
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module
