"""Everything that the loaded plugins provide, by name."""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from ..errors import PlanError, PluginError, SuiteError
from .entry import KINDS, Entry, Kind, PluginReport
from .frames import describe, last_frame
from .load import Loaded, load_plugin
from .source import Candidate, from_files, installed

if TYPE_CHECKING:
    from .registry import Registry

logger = logging.getLogger("unlearn_suite.plugins")
_SEARCHED_FILES = 200


def load_catalog(files: Sequence[Path] = ()) -> Catalog:
    """Load every installed plugin and the given plugin files. Never fails because of a plugin."""
    return catalog_of([*installed(), *from_files(files)])


def catalog_of(candidates: Sequence[Candidate], registry: Registry | None = None) -> Catalog:
    """Load the candidates in their order; a target that is loaded already is reported as a duplicate."""
    loaded: list[Loaded] = []
    taken: set[tuple[str, str]] = set()
    targets: dict[str, Candidate] = {}
    for candidate in candidates:
        first = targets.setdefault(candidate.target, candidate)
        if first is not candidate:
            loaded.append(_again(candidate, first))
            continue
        one = load_plugin(candidate, taken)
        taken.update((entry.kind, entry.qualified) for entry in one.entries)
        loaded.append(one)
    return Catalog(loaded, registry)


def _again(candidate: Candidate, first: Candidate) -> Loaded:
    distribution, point, target = candidate.distribution, candidate.entry_point, candidate.target
    message = f"{target} is loaded already, as {first.entry_point!r} of {first.distribution}"
    # Two wheels that hold the same files: uninstalling one takes them from the other as well.
    action = f"keep one: pip uninstall {distribution}, then install {first.distribution} again"
    if distribution == first.distribution:
        action = "remove one of the two entry points"
    report = PluginReport("duplicate", distribution, candidate.version, point, target, message=message, action=action)
    return Loaded(report)


class Catalog:
    """What the plugins provide. `reports` tells of every plugin, in order of distribution and entry point."""

    def __init__(self, loaded: Sequence[Loaded], registry: Registry | None = None) -> None:
        self.reports: list[PluginReport] = [one.report for one in loaded]
        self.observer_errors: list[PluginError] = []
        self._entries: list[Entry] = [entry for one in loaded for entry in one.entries]
        self._observers = [one for one in loaded if one.manager is not None]
        self._registry = registry

    def entries(self, kind: Kind) -> list[Entry]:
        """All entries of a kind, in the order of the reports."""
        return [entry for entry in self._entries if entry.kind == kind]

    def clashes(self, report: PluginReport) -> list[str]:
        """Of what a plugin provides, the names that others have as well; with the place and what to write instead."""
        told = []
        for entry in (entry for entry in self._entries if entry.qualified in report.provides):
            same = [e for e in self.entries(entry.kind) if e.spec.name == entry.spec.name]
            if others := [e.distribution for e in same if e.distribution != entry.distribution]:
                at = f"{entry.where}: " if entry.where else ""
                what = f"has {_a(entry.kind)} {entry.spec.name!r}, and so has {', '.join(others)}"
                told.append(f"{what} ({at}write {entry.qualified} in plans)")
        return told

    def find(self, kind: Kind, name: str) -> Entry:
        """The entry of a qualified name, or of a bare name that is unique.

        Raises `PluginError`: "plugin-unknown" (nobody has it), "plugin-missing" (a plugin that is not
        installed has it), "plugin-broken" (the plugin that would have it could not be loaded); or
        `PlanError` "plugin-ambiguous" (several plugins have it).
        """
        found = [entry for entry in self.entries(kind) if _matches(entry, name)]
        if len(found) == 1:
            return found[0]
        if found:
            message = f"several plugins have {_a(kind)} {name!r}"
            hint = "write " + " or ".join(entry.qualified for entry in found)
            raise PlanError(message, code="plugin-ambiguous", hint=hint)
        raise self._why_not(kind, name)

    def _why_not(self, kind: Kind, name: str) -> SuiteError:
        report = self._likely_provider(kind, name)
        if report is not None:
            plugin = " ".join(filter(None, (report.distribution, report.version)))
            place = f" ({report.where})" if report.where else ""
            message = f"{kind} {name!r} is in plugin {plugin}, which is {report.status}: {report.message}{place}"
            return PluginError(message, code="plugin-broken", where=report.distribution, hint=report.action)
        if missing := self._in_registry(kind, name):
            return missing
        return PluginError(f"there is no {kind} {name!r}", code="plugin-unknown", hint=self._hint(kind, name))

    def _hint(self, kind: Kind, name: str) -> str:
        others = [entry for entry in self._entries if _matches(entry, name)]
        if others:
            return f"{name!r} is {_a(others[0].kind)}"
        bare = name.rpartition("/")[2]
        known = sorted({entry.spec.name for entry in self.entries(kind)})
        if near := difflib.get_close_matches(bare, known, n=1, cutoff=0.6):
            return f"did you mean {near[0]!r}?"
        unloaded = sum(not report.ok for report in self.reports)
        if unloaded:
            return f"{unloaded} of the plugins could not be loaded: see `unlearn-suite plugins list`"
        return f"there are: {', '.join(known)}" if known else f"no plugin has any {kind}"

    def _likely_provider(self, kind: Kind, name: str) -> PluginReport | None:
        """The plugin that could not be loaded and would, by all signs, have the name."""
        distribution, _, bare = name.rpartition("/")
        for report in self.reports:
            if report.ok or report.status == "duplicate":
                continue
            if distribution and canonicalize_name(report.distribution) != canonicalize_name(distribution):
                continue
            if distribution or bare in report.attempted or _in_source(bare, report.roots):
                return report
            if report.distribution in self.registry.providers(kind, bare):
                return report
        return None

    @property
    def registry(self) -> Registry:
        if self._registry is None:
            from .registry import read_registry

            self._registry = read_registry()
        return self._registry

    def _in_registry(self, kind: Kind, name: str) -> PluginError | None:
        bare = name.rpartition("/")[2]
        have = {report.distribution for report in self.reports}
        for distribution in self.registry.providers(kind, bare):
            if distribution in have:
                continue
            known = self.registry.plugins[distribution]
            if known.status == "planned":
                message = f"{kind} {bare!r} is planned for {distribution}, which is not released yet"
                return PluginError(message, code="plugin-missing", hint=self._hint(kind, bare))
            message = f"{kind} {bare!r} is not installed; it is in {distribution}"
            return PluginError(message, code="plugin-missing", hint=f"pip install {distribution}")
        return None

    def notify(self, hook_name: str, **arguments: Any) -> None:
        """Call an observer hook of every plugin that has it, each with a copy of its own.

        An observer that raises is told once (log and `observer_errors`) and not called again.
        """
        for one in list(self._observers):
            assert one.manager is not None
            hook = getattr(one.manager.hook, hook_name)
            if not hook.get_hookimpls():
                continue
            try:
                hook(**copy.deepcopy(arguments))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._observers.remove(one)
                self._blame_observer(one.report, hook_name, error)

    def _blame_observer(self, report: PluginReport, hook_name: str, error: BaseException) -> None:
        frame = last_frame(error, report.roots)
        where = f"{report.distribution}, {frame}" if frame else report.distribution
        message = f"its observer {hook_name} raised {describe(error)} and is switched off"
        hint = "report it to the plugin's author; results are not touched"
        told = PluginError(message, code="plugin-observer", where=where, hint=hint)
        self.observer_errors.append(told)
        logger.warning("%s", told)


def _matches(entry: Entry, name: str) -> bool:
    distribution, _, bare = name.rpartition("/")
    if bare != entry.spec.name:
        return False
    return not distribution or canonicalize_name(distribution) == canonicalize_name(entry.distribution)


def _a(kind: Kind) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _in_source(name: str, roots: Sequence[Path]) -> bool:
    """Whether a quoted name stands in a plugin's Python files."""
    files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*.py")))]
    quoted = (f'"{name}"'.encode(), f"'{name}'".encode())
    for file in files[:_SEARCHED_FILES]:
        try:
            text = file.read_bytes()
        except OSError:
            continue
        if any(word in text for word in quoted):
            return True
    return False


__all__ = ["KINDS", "Catalog", "catalog_of", "load_catalog"]
