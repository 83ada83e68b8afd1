"""What is checked: a plugin, or one thing that it brings, with what its author told of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from ...errors import PlanError
from ...plan.faults import Faults, suggest
from ...plan.resolve import Resolver
from ...plan.text import Node
from ...plugins import Catalog, Entry, PluginReport, load_target
from ...specs import Config, Example, ProblemSpec
from .check import CheckFailed
from .sheet import FILE, Told, empty, read_sheet, sheet_path, told_of

KINDS = ("objective", "dataset", "metric", "problem", "attack")


@dataclass(frozen=True)
class Subject:
    """`entry` is None when the subject is the plugin itself. `memo` keeps what several checks need,
    for all subjects of a plugin, and under "subjects" all that are checked."""

    catalog: Catalog
    report: PluginReport
    entry: Entry | None
    told: Told
    files: tuple[Path, ...] = ()
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def label(self) -> str:
        """ "objective npo", "plugin unlearn-suite-hush"."""
        if self.entry is not None:
            return f"{self.entry.kind} {self.entry.spec.name}"
        return f"plugin {plugin_name(self.report)}"

    @property
    def area(self) -> str:
        return self.entry.kind if self.entry else "plugin"

    @property
    def spec(self) -> Any:
        assert self.entry is not None
        return self.entry.spec

    def unavailable(self, identity: str) -> str:
        """Why the sheet says that a check cannot be run; "" if it does not."""
        told = self.told.words.unavailable
        return next((reason for pattern, reason in told.items() if fnmatchcase(identity, pattern)), "")

    def target(self) -> Any:
        """The class or function that the spec names. Raises `PluginError`."""
        return load_target(self.spec.load)

    def cases(self) -> list[Node]:
        """The cases of the sheet, or one that tells nothing."""
        return self.told.parts("cases") or [empty(self.told.node.folder)]

    def options(self, node: Node) -> Config:
        """The options under `with` of a case. Raises `PlanErrors`."""
        faults = Faults()
        config = Resolver(self.catalog, faults).options(node, self.spec.config)
        faults.stop(node.at.file)
        assert config is not None
        return config

    def examples(self, node: Node, role: str) -> list[Example]:
        """A list of texts or examples, or what datasets named as in a plan give. Raises `PlanErrors`."""
        if node.items and not any("use" in item.map for item in node.items):
            return [_example(item.plain(), f"{role}/{index}") for index, item in enumerate(node.items)]
        faults = Faults()
        uses = Resolver(self.catalog, faults).data(node)
        faults.stop(node.at.file)
        return [example for use in uses or () for example in load_target(use.spec.load)(use.config)]


def _example(told: Any, identity: str) -> Example:
    if isinstance(told, str):
        return Example(identity, told)
    try:
        facts = {"id": identity, **told}
        if "choices" in facts:
            facts["choices"] = tuple(facts["choices"])
        return Example(**facts)
    except TypeError as error:
        raise CheckFailed(f"example {identity!r} of the sheet is none: {error}") from error


def plugin_name(report: PluginReport) -> str:
    """The distribution, with the entry point where the distribution has several of ours."""
    if canonicalize_name(report.distribution) == "unlearn-suite":
        return f"{report.distribution}:{report.entry_point}"
    return report.distribution


def find_subjects(catalog: Catalog, name: str, files: Sequence[Path] = ()) -> list[Subject]:
    """The plugin of a name with everything it brings, or the one entry of a name.

    A plugin goes by its distribution, its entry point, both with a colon between them, or its file's stem.
    Raises `PlanError` when nothing has the name.
    """
    wanted = canonicalize_name(name)
    reports = [report for report in catalog.reports if wanted in map(canonicalize_name, _names(report))]
    if reports:
        return [subject for report in reports for subject in _of_plugin(catalog, report, tuple(files))]
    found = [
        subject
        for report in catalog.reports
        for subject in _of_plugin(catalog, report, tuple(files))
        if subject.entry is not None and name in (subject.spec.name, subject.entry.qualified)
    ]
    if found:
        return found
    known = [n for report in catalog.reports for n in (*_names(report), *report.provides)]
    bare = [n.rpartition("/")[2] for n in known]
    hint = suggest(name, [*known, *bare]) or "see `unlearn-suite plugins list`"
    raise PlanError(f"no plugin and nothing of a plugin is called {name!r}", code="plugin-unknown", hint=hint)


def _names(report: PluginReport) -> tuple[str, ...]:
    return report.distribution, report.entry_point, f"{report.distribution}:{report.entry_point}"


def _of_plugin(catalog: Catalog, report: PluginReport, files: tuple[Path, ...]) -> Iterator[Subject]:
    path = sheet_path(report.roots)
    root = read_sheet(path) if path else None
    memo: dict[Any, Any] = {}
    if root is not None and report.ok:
        _check_names(root, catalog, report)
    yield Subject(catalog, report, None, told_of(root, "plugin"), files, memo)
    for kind in KINDS:
        for entry in catalog.entries(kind):  # type: ignore[arg-type]
            if entry.qualified in report.provides and _owns(report, entry):
                yield Subject(catalog, report, entry, told_of(root, kind, entry.spec.name), files, memo)


def _check_names(root: Node, catalog: Catalog, report: PluginReport) -> None:
    """Raise `PlanErrors` for names in a sheet that the plugin does not bring: what is told of them would not count."""
    faults = Faults()
    for kind in KINDS:
        brought = [e.spec.name for e in catalog.entries(kind) if _owns(report, e)]  # type: ignore[arg-type]
        told = root.under(kind)
        for name, node in (told.map if told is not None else {}).items():
            if name not in brought:
                hint = suggest(name, brought) or "take it out"
                faults.add(node.at, f"the plugin brings no {kind} {name!r}", "sheet-name", hint)
    faults.stop(FILE)


def _owns(report: PluginReport, entry: Entry) -> bool:
    """Several entry points of one distribution may bring things of one name and different kinds."""
    return set(report.roots) <= set(entry.roots)


def config_of(subject: Subject) -> type[Config] | None:
    """The options model of an entry; None for a problem or a plugin."""
    if subject.entry is None or isinstance(subject.spec, ProblemSpec):
        return None
    config: type[Config] = subject.spec.config
    return config
