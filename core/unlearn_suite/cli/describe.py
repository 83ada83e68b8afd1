"""What a registered thing is and which options it takes, as plain data and as lines of text."""

from __future__ import annotations

import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from ..plan.check import models_in
from ..plan.faults import Faults
from ..plan.fragments import read_fragment
from ..plan.limits import subject
from ..plan.model import SHIPPED, EntryLike
from ..plan.parameters import read_parameters
from ..plan.presets import read_presets
from ..specs import AttackSpec, DatasetSpec, MetricSpec, ObjectiveSpec, ProblemSpec, Train

_PLAIN = {int: "int", float: "float", str: "text", bool: "true|false", Path: "path", type(None): "null", Any: "any"}
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "multiple of"}


def entry_json(entry: EntryLike) -> dict[str, Any]:
    """Everything `plugins show` tells, as JSON-able data."""
    spec = entry.spec
    shown: dict[str, Any] = {
        "name": entry.qualified,
        "kind": spec.kind,
        "summary": spec.summary,
        "distribution": entry.distribution,
        "version": entry.version,
    }
    for key in ("paper", "fidelity", "licence", "size", "source", "fragment"):
        if getattr(spec, key, ""):
            shown[key] = getattr(spec, key)
    if getattr(spec, "extras", ()):
        shown["extras"] = list(getattr(spec, "extras", ()))
    if isinstance(spec, ObjectiveSpec):
        shown["roles"] = {"required": list(spec.roles), "optional": list(spec.optional_roles)}
        trains = Train.model_validate(dict(spec.train))
        shown["train"] = {key: getattr(trains, key) for key in spec.train}
        presets = read_presets(spec, Faults())
        if presets:
            shown["presets"] = {name: {"summary": w.summary, "tried": w.tried} for name, (w, _) in presets.items()}
    if isinstance(spec, MetricSpec):
        shown["needs_data"] = spec.needs_data
        shown["sampled"] = spec.sampled
        shown["values"] = {name: _value(value) for name, value in spec.values.items()}
    if isinstance(spec, AttackSpec):
        shown["roles"] = {"required": list(spec.roles), "optional": []}
    if isinstance(spec, ObjectiveSpec | DatasetSpec | MetricSpec | AttackSpec):
        shown["options"] = list(options(spec.config))
    else:
        assert isinstance(spec, ProblemSpec)
        told = parameters(spec)
        shown |= {**contents(spec), **({"options": told} if told else {})}
    return shown


def contents(spec: ProblemSpec) -> dict[str, Any]:
    """What a problem's file brings: data roles, metric entries with what is wanted of them, limits, stages."""
    node = read_fragment(spec, Faults())
    body = node.plain() if node is not None else None
    if not isinstance(body, dict):
        return {}
    entries = [{"use": entry} if isinstance(entry, str) else entry for entry in body.get("metrics", ())]
    names = [str(entry.get("name", entry["use"])).rpartition("/")[2] for entry in entries]
    found: dict[str, Any] = {
        "data": list(body["data"]),
        "metrics": {name: entry.get("want", "keep") for name, entry in zip(names, entries, strict=True)},
        "expect": list(body.get("expect", ())),
        "stages": [word for word in ("start", *SHIPPED) if word in body],
    }
    return {key: value for key, value in found.items() if value}


def parameters(spec: ProblemSpec) -> list[dict[str, Any]]:
    """The same records as `options`, for what a problem takes under `with`."""
    body = read_fragment(spec, Faults())
    told = read_parameters(body, Faults()) if body else {}
    return [
        {"name": name, "type": words.type}
        | ({"required": True} if words.required else {"default": words.default})
        | {"doc": words.summary}
        for name, words in told.items()
    ]


def _value(value: Any) -> dict[str, Any]:
    keys = ("summary", "unit", "better", "chance", "lowest", "highest", "reliability")
    return {key: getattr(value, key) for key in keys if getattr(value, key) not in ("", None)}


def options(config: type[BaseModel], prefix: str = "") -> Iterator[dict[str, Any]]:
    """One record per option: name (dotted below a nested one), type, default, range, doc."""
    for name, field in config.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        record: dict[str, Any] = {"name": key, "type": type_name(field.annotation)}
        if field.is_required():
            record["required"] = True
        else:
            record["default"] = _default(field)
        limits = _limits(field.metadata)
        if limits:
            record["range"] = limits
        record["doc"] = " ".join((field.description or "").split())
        yield record
        for nested in dict.fromkeys(models_in(field.annotation)):
            yield from options(nested, f"{key}.")


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    return None if value is PydanticUndefined else to_jsonable_python(value, fallback=str)


def _limits(metadata: list[Any]) -> str:
    """The bounds of a field: "> 0, <= 1"."""
    found = []
    for item in metadata:
        for name, sign in _BOUNDS.items():
            bound = getattr(item, name, None)
            if bound is not None:
                found.append(f"{sign} {bound:g}" if isinstance(bound, int | float) else f"{sign} {bound}")
    return ", ".join(found)


def type_name(annotation: Any) -> str:
    """A type in a plan's words: `int or list of int`, `none|relearn`, `path`."""
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return "|".join(str(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_name(argument) for argument in arguments))
    return _container(annotation, origin, arguments)


def _container(annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> str:
    kind = origin or annotation
    if isinstance(kind, type) and issubclass(kind, BaseModel | dict):
        return "mapping"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(item.value) for item in kind)
    if kind is tuple and Ellipsis not in arguments:
        return f"[{', '.join(type_name(argument) for argument in arguments)}]"
    return f"list of {type_name(arguments[0])}" if arguments else str(getattr(kind, "__name__", kind))


def entry_lines(shown: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    yield f"{shown['name']} ({shown['kind']}, {shown['distribution']} {shown['version']})"
    yield f"  {shown['summary']}"
    for key in ("paper", "fidelity", "licence", "size", "source"):
        if key in shown:
            yield f"  {key}: {shown[key]}"
    if "extras" in shown:
        yield f"  needs the extra: {', '.join(shown['extras'])}"
    if "roles" in shown:
        optional = shown["roles"]["optional"]
        more = f"; optional: {', '.join(optional)}" if optional else ""
        required = [f"what `{r[1:-1]}` says" if r.startswith("{") else r for r in shown["roles"]["required"]]
        yield f"  data roles: {', '.join(required) or 'none'}{more}"
    if shown.get("train"):
        yield f"  trains by default with: {', '.join(f'{key} {value}' for key, value in shown['train'].items())}"
    if "presets" in shown:
        yield "  presets (`preset: NAME` beside `use`):"
        for name, preset in shown["presets"].items():
            yield from _item(name, [] if preset["tried"] else ["not run at that scale"], preset["summary"])
    if "values" in shown:
        yield "  values:"
        for name, value in shown["values"].items():
            known = f"; reliability: {value['reliability']}" if "reliability" in value else ""
            yield from _item(name, _facts(value), value["summary"] + known)
    yield from _contents_lines(shown)
    if "options" in shown:
        yield "  options:" if shown["options"] else "  options: none"
        for option in shown["options"]:
            yield from _item(option["name"], _option_facts(option), option["doc"])


def _contents_lines(shown: dict[str, Any]) -> Iterator[str]:
    """Of a problem."""
    if "data" in shown:
        yield f"  data roles: {', '.join(shown['data'])}"
    if "metrics" in shown:
        yield f"  metric entries: {', '.join(f'{name} ({want})' for name, want in shown['metrics'].items())}"
    if "expect" in shown:
        yield "  expects:"
    for line in shown.get("expect", ()):
        ends = [f"{word} {line[word]:g}" for word in ("above", "below") if word in line]
        yield f"    {subject(line['metric'], line.get('value'), line.get('of', 'after'))}: {' and '.join(ends)}"
    if "stages" in shown:
        yield f"  stages: {', '.join(shown['stages'])}"


def _item(name: str, facts: list[str], doc: str) -> Iterator[str]:
    yield f"    {name}: {', '.join(facts)}" if facts else f"    {name}"
    if doc:
        yield f"        {doc}"


def _facts(value: dict[str, Any]) -> list[str]:
    facts = [value["unit"]] if "unit" in value else []
    facts += [f"{value['better']} is better"] if "better" in value else []
    facts += [f"{key} {value[key]:g}" for key in ("lowest", "highest", "chance") if key in value]
    return facts


def _option_facts(option: dict[str, Any]) -> list[str]:
    facts = [option["type"], *([option["range"]] if "range" in option else [])]
    if option.get("required"):
        return [*facts, "required"]
    if isinstance(option["default"], dict):
        return facts  # the nested options below tell their own
    return [*facts, f"default {plain(option['default'])}"]


def plain(value: Any) -> str:
    """A default in a plan's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(plain(item) for item in value)}]"
    return repr(value) if value == "" else str(value)
