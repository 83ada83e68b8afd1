"""The problems of a plan: shipped by a plugin (a YAML fragment in its package), changed, or written out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..specs import ProblemSpec
from .changes import changed
from .check import check
from .combined import check_combined
from .faults import Faults, suggest
from .grammar import FragmentWords, ProblemUseWords, ProblemWords
from .limits import read_limits
from .model import SHIPPED, MetricUse, Problem, Shipped, Stage
from .packaged import merge, packaged_file
from .parameters import filled
from .resolve import Resolver
from .text import Mark, Node, read_yaml


def read_fragment(spec: ProblemSpec, faults: Faults, at: Mark | str = "") -> Node | None:
    """The file of a problem that a plugin ships, its outer words checked; `at` is where a plan names it."""
    try:
        path = packaged_file(spec.fragment)
    except (ImportError, TypeError, ValueError) as error:
        message = f"the fragment {spec.fragment!r} of problem {spec.name!r} cannot be found: {error}"
        faults.add(at, message, "plan-fragment", "tell the plugin's author")
        return None
    body = read_yaml(path, faults)
    if body is None or check(body, FragmentWords, faults) is None:
        return None
    return body


class Dropped(NamedTuple):
    """What the plan takes out of the problem that is read, and where."""

    roles: Mapping[str, Mark]
    entries: Mapping[str, Mark]


class ProblemReader:
    """Reads the entries of `problems`. `extra` are the plan's own metrics, added to every problem; `wanted` are the
    stages of problems that arms take (others are only read in problems that the plan writes out)."""

    def __init__(self, resolver: Resolver, extra: Sequence[Node], *, wanted: Collection[Shipped]) -> None:
        self.resolver = resolver
        self.faults: Faults = resolver.faults
        self.extra = extra
        self.wanted = wanted
        self._fragments: dict[str, Node | None] = {}
        self._dropped = Dropped({}, {})

    def read(self, node: Node) -> Problem | None:
        """A problem, or None with what is wrong noted."""
        if isinstance(node.value, str):
            node = Node({"use": node}, node.at, None, node.folder)
        if not isinstance(node.value, dict):
            self.faults.add(node.at, f"a problem is a name or a mapping, found {node.kind()}", "plan-type")
            return None
        if "use" in node.map:
            return self._shipped(node)
        if "name" not in node.map:
            hint = "write `use: NAME` for one that a plugin ships, or `name: LABEL` with its data"
            self.faults.add(node.at, "a problem needs `use` or `name`", "plan-missing-key", hint)
            return None
        words = check(node, ProblemWords, self.faults)
        label = words.name if words else str(node.map["name"].plain())
        self._dropped = Dropped({}, {})
        return self._resolve(node, label, "", own=True)

    def _shipped(self, node: Node) -> Problem | None:
        words = check(node, ProblemUseWords, self.faults)
        entry = self.resolver.find("problem", node.map["use"])
        if entry is None or not isinstance(entry.spec, ProblemSpec):
            return None
        body = self._fragment(entry.qualified, entry.spec, node)
        body = filled(body, node, entry.spec, self.faults) if body else None
        if body is None:
            return None
        label = (words.label if words else None) or entry.spec.name
        return self._resolve(self._changed(body, node, label), label, entry.qualified, own=False)

    def _fragment(self, qualified: str, spec: ProblemSpec, node: Node) -> Node | None:
        """The parsed and checked fragment; read once however often a plan uses it."""
        if qualified not in self._fragments:
            self._fragments[qualified] = read_fragment(spec, self.faults, node.map["use"].at)
        return self._fragments[qualified]

    def _changed(self, body: Node, node: Node, label: str) -> Node:
        """The fragment with the plan's `data` and `metrics` merged in or dropped, and its `set` carried out."""
        items = dict(body.map)
        data, metrics = node.under("data"), node.under("metrics")
        self._dropped = Dropped(_nulls(data), _nulls(metrics))
        if data is not None and isinstance(data.value, dict):
            items["data"] = self._changed_data(items.get("data"), data, label)
        if metrics is not None and isinstance(metrics.value, dict):
            items["metrics"] = self._changed_metrics(items.get("metrics"), metrics, label)
        for key in ("chat", "expect"):
            own = node.under(key)
            if own is not None and own.value is not None:
                items[key] = own
        changes = node.under("set")
        for path, value in (changes.map if changes else {}).items():
            self._set(items, path, value, label)
        return replace(body, value=items)

    def _set(self, items: dict[str, Node], path: str, value: Node, label: str) -> None:
        """Change the stages that the problem brings."""
        at = value.key_or_value
        word, *keys = path.split(".")
        part = items.get(word)
        stages = part.under("stages") if part is not None and word in ("start", *SHIPPED) else None
        if part is None or stages is None or not keys:
            there = [f"`{name}`" for name in ("start", *SHIPPED) if name in items]
            hint = f"begin with one of {', '.join(there)}" if there else ""
            self.faults.add(at, f"problem {label!r} brings no stages under {path!r}", "plan-set", hint)
            return
        new = changed(stages, keys, value, at, path, self.faults)
        if new is not None:
            items[word] = replace(part, value={**part.map, "stages": new})

    def _changed_data(self, body: Node | None, changes: Node, label: str) -> Node:
        roles = body.map if body else {}
        for role in (role for role in self._dropped.roles if role not in roles):
            hint = suggest(role, roles, all_of_them="its roles")
            message = f"problem {label!r} has no data role {role!r} to drop"
            self.faults.add(self._dropped.roles[role], message, "plan-role", hint)
        items = {role: child for role, child in roles.items() if role not in self._dropped.roles}
        given = {role: child for role, child in changes.map.items() if role not in self._dropped.roles}
        return merge(replace(body or changes, value=items), replace(changes, value=given))

    def _changed_metrics(self, body: Node | None, changes: Node, label: str) -> Node:
        entries = [_as_mapping(entry) for entry in (body.items if body else [])]
        names = [metric_name(entry) for entry in entries]
        for name, change in changes.map.items():
            if change.value is None and name in names:
                entries = [entry for entry in entries if metric_name(entry) != name]
                names.remove(name)
            elif change.value is None:
                hint = suggest(name, names, all_of_them="its entries")
                message = f"problem {label!r} has no metric entry {name!r} to drop"
                self.faults.add(change.key_or_value, message, "plan-metric", hint)
            elif not isinstance(change.value, dict):
                message = f"{name!r}: expected a mapping, found {change.kind()}"
                self.faults.add(change.at, message, "plan-type")
            elif name in names:
                index = names.index(name)
                entries[index] = merge(entries[index], change)
            elif "use" in change.value:  # an entry of the plan's own
                given = {"name": replace(change, value=name, at=change.key_or_value), **change.value}
                entries.append(replace(change, value=given))
            else:
                hint = suggest(name, names, all_of_them="its entries")
                message = f"problem {label!r} has no metric entry {name!r}"
                self.faults.add(change.key_or_value, message, "plan-metric", hint)
        return replace(body or changes, value=entries)

    def _resolve(self, body: Node, label: str, source: str, *, own: bool) -> Problem | None:
        summary, chat = body.under("summary"), body.under("chat")
        data_node = body.under("data")
        roles = data_node.map if data_node else {}
        data = {role: self.resolver.data(child) for role, child in roles.items()}
        metrics = self._metrics(body, label, list(roles))
        start = self._stages(body.under("start"))
        shipped = {word: self._stages(body.under(word)) for word in SHIPPED if own or word in self.wanted}
        found = {role: uses for role, uses in data.items() if uses is not None}
        if len(found) < len(data) or metrics is None:
            return None
        limits = read_limits(body.under("expect"), metrics, self._dropped.entries, label, self.faults)
        text = summary.value if summary and isinstance(summary.value, str) else ""
        return Problem(
            label,
            source,
            text,
            found,
            tuple(metrics),
            default=shipped.get("default"),
            start=start or (),
            oracle=shipped.get("oracle"),
            chat=chat is not None and chat.value is True,
            expect=limits,
            dropped=self._dropped.roles,
        )

    def _stages(self, node: Node | None) -> tuple[Stage, ...] | None:
        """The stages below one of a problem's words; None where it does not have it, or they are faulty."""
        return self.resolver.stages(node.under("stages")) if node is not None and node.value is not None else None

    def _metrics(self, body: Node, label: str, roles: list[str]) -> list[MetricUse] | None:
        node = body.under("metrics")
        own = node.items if node else []
        names = {metric_name(entry) for entry in own}
        # A bare name in the plan's list asks for what the problem may measure already.
        added = [entry for entry in self.extra if not (isinstance(entry.value, str) and entry.value in names)]
        uses: list[MetricUse] = []
        entries = [*own, *added]
        for entry in entries:
            use = self.resolver.metric(entry, roles, label, self._dropped.roles)
            if use is None:
                continue
            if any(use.name == other.name for other in uses):
                message = f"problem {label!r} has two metric entries named {use.name!r}"
                self.faults.add(entry.at, message, "plan-metric", "give one a `name` of its own")
            uses.append(use)
        if len(uses) < len(entries):
            return None
        for entry, use in zip(entries, uses, strict=True):
            check_combined(entry, use, uses, self._dropped.entries, label, self.faults)
        return uses


def _nulls(changes: Node | None) -> dict[str, Mark]:
    """The names that the plan gives null, and where."""
    items = changes.map if changes is not None else {}
    return {name: child.key_or_value for name, child in items.items() if child.value is None}


def metric_name(entry: Node) -> str:
    """The label of a metric entry before it is resolved: its `name`, else the bare name in `use`."""
    if isinstance(entry.value, str):
        return entry.value.rpartition("/")[2]
    named = entry.under("name") or entry.under("use")
    return str(named.value).rpartition("/")[2] if named else ""


def _as_mapping(entry: Node) -> Node:
    if isinstance(entry.value, str):
        return Node({"use": entry}, entry.at, entry.key_at, entry.folder)
    return entry
