"""Names and options of a plan -> the plugins' specs with checked configs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from ..errors import SuiteError
from ..specs import AttackSpec, Config, DatasetSpec, MetricSpec, ObjectiveSpec, Train
from .check import check
from .faults import Faults, suggest
from .grammar import MetricWords, StageWords, UseWords
from .model import CatalogLike, DataUse, EntryLike, Kind, MetricUse, Stage
from .presets import under_preset
from .text import Mark, Node

S = TypeVar("S", AttackSpec, DatasetSpec, MetricSpec, ObjectiveSpec)


class Resolver:
    """Resolves parts of a plan against a catalog; everything that is wrong goes into `faults`.

    Each method returns None when its part cannot be used, after noting why. `notes` are for the user to know.
    """

    def __init__(self, catalog: CatalogLike, faults: Faults) -> None:
        self.catalog = catalog
        self.faults = faults
        self.notes: list[str] = []

    def find(self, kind: Kind, node: Node | None) -> EntryLike | None:
        """The entry a name stands for. A node that is no text has been reported by `check` already."""
        if node is None or not isinstance(node.value, str):
            return None
        try:
            return self.catalog.find(kind, node.value)
        except SuiteError as error:
            self.faults.adopt(node.at, error)
            return None

    def spec(self, kind: Kind, node: Node, spec_type: type[S]) -> tuple[EntryLike, S] | None:
        entry = self.find(kind, node.under("use"))
        if entry is None or not isinstance(entry.spec, spec_type):
            return None
        return entry, entry.spec

    def options(self, node: Node, config: type[Config], *, beside: Collection[str] = ()) -> Config | None:
        """The checked options under `with`; `beside` are keys that belong one level up."""
        given = node.under("with")
        if given is None:
            given = Node({}, node.key_or_value, node.key_or_value, node.folder)
        if given.value is not None and not isinstance(given.value, dict):
            return None  # the check of the words has told
        misplaced = [key for key in given.map if key in beside and key not in config.model_fields]
        for key in misplaced:
            at = given.map[key].key_or_value
            message = f"{key!r} is no option of the objective"
            self.faults.add(at, message, "plan-key", "write it beside `use`")
        kept = _without(given, misplaced) if misplaced else given
        checked = check(kept, config, self.faults)
        return None if misplaced else checked

    def data(self, node: Node) -> tuple[DataUse, ...] | None:
        """One dataset or a list of them."""
        parts = node.items if isinstance(node.value, list) else [node]
        if not parts:
            self.faults.add(node.at, "a data role needs at least one dataset", "plan-value")
            return None
        uses = [self._one_dataset(part) for part in parts]
        found = [use for use in uses if use is not None]
        return tuple(found) if len(found) == len(uses) else None

    def _one_dataset(self, node: Node) -> DataUse | None:
        words = check(node, UseWords, self.faults)
        found = self.spec("dataset", node, DatasetSpec)
        if found is None:
            return None
        config = self.options(node, found[1].config)
        return DataUse(*found, config) if config is not None and words else None

    def stages(self, node: Node | None) -> tuple[Stage, ...] | None:
        """A list of stages."""
        parts = node.items if node else []
        stages = [self._stage(part) for part in parts]
        found = [stage for stage in stages if stage is not None]
        return tuple(found) if len(found) == len(stages) else None

    def _stage(self, node: Node) -> Stage | None:
        if not isinstance(node.value, dict):
            self.faults.add(node.at, f"a stage is a mapping, found {node.kind()}", "plan-type")
            return None
        found = self.spec("objective", node, ObjectiveSpec)
        if found is not None:
            node, note = under_preset(node, found[1], self.faults)
            self.notes += [note] if note and note not in self.notes else []
        words = self._stage_words(node, found[1] if found else None)
        if found is None:
            return None
        config = self.options(node, found[1].config, beside=Train.model_fields)
        if config is None or words is None:
            return None
        written = {key: getattr(words, key) for key in words.model_fields_set if key in Train.model_fields}
        train = Train.model_validate({**found[1].train, **written})
        return Stage(*found, config, train, node.map["use"].at)

    def _stage_words(self, node: Node, spec: ObjectiveSpec | None) -> StageWords | None:
        """The keys of a stage beside the objective's options."""
        options = set(spec.config.model_fields) - {*Train.model_fields, "use", "with", "preset"} if spec else set()
        misplaced = [key for key in node.map if key in options]
        for key in misplaced:
            message = f"{key!r} is an option of the objective"
            self.faults.add(node.map[key].key_or_value, message, "plan-key", "write it under `with`")
        words = check(_without(node, misplaced), StageWords, self.faults)
        return None if misplaced else words

    def metric(
        self, node: Node, roles: Collection[str], problem: str, dropped: Mapping[str, Mark] | None = None
    ) -> MetricUse | None:
        """A metric entry: a name, or a mapping; `roles` are the problem's, `dropped` those the plan took out of it."""
        if isinstance(node.value, str):
            node = Node({"use": node}, node.at, node.key_at, node.folder)
        words = check(node, MetricWords, self.faults)
        found = self.spec("metric", node, MetricSpec)
        if found is None:
            return None
        spec = found[1]
        config = self.options(node, spec.config)
        fits = self._metric_data(node, spec, roles, problem, dropped or {})
        show = self._show(node, spec)
        if config is None or words is None or show is None or not fits:
            return None
        return MetricUse(words.name or spec.name, *found, config, words.data, words.want, show)

    def _metric_data(
        self, node: Node, spec: MetricSpec, roles: Collection[str], problem: str, dropped: Mapping[str, Mark]
    ) -> bool:
        role = node.under("data")
        if role is None or role.value is None:
            if spec.needs_data:
                use = node.under("use") or node
                message = f"metric {spec.name!r} needs `data`, a role of problem {problem!r}"
                self.faults.add(use.at, message, "plan-role", f"its roles: {', '.join(roles)}")
            return not spec.needs_data
        if not isinstance(role.value, str):
            return False
        if role.value in dropped:
            reader = (node.under("name") or node.map["use"]).value
            hint = f"drop that entry as well, as in metrics: {{{reader}: null}}, or give it another role"
            message = f"data role {role.value!r} cannot be dropped: metric entry {reader!r} reads it"
            self.faults.add(dropped[role.value], message, "plan-role", hint)
        elif role.value not in roles:
            message = f"problem {problem!r} has no data role {role.value!r}"
            hint = suggest(role.value, roles, all_of_them="its roles")
            self.faults.add(role.at, message, "plan-role", hint)
        return role.value in roles

    def _show(self, node: Node, spec: MetricSpec) -> tuple[str, ...] | None:
        show = node.under("show")
        if show is None or not isinstance(show.value, list):
            return (next(iter(spec.values)),)
        names = [name for name in show.items if isinstance(name.value, str)]
        unknown = [name for name in names if name.value not in spec.values]
        for name in unknown:
            hint = suggest(str(name.value), spec.values, all_of_them="its values")
            message = f"metric {spec.name!r} has no value {name.value!r}"
            self.faults.add(name.at, message, "plan-show", hint)
        return None if unknown else tuple(str(name.value) for name in names)


def _without(node: Node, keys: Collection[str]) -> Node:
    return replace(node, value={key: child for key, child in node.map.items() if key not in keys})
