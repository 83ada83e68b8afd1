"""The JSON Schema of plans, built from what is installed: editors complete and check plans with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from ..specs import AttackSpec, DatasetSpec, MetricSpec, ObjectiveSpec, ProblemSpec, Train
from .faults import Faults
from .fragments import read_fragment
from .grammar import (
    ArmWords,
    AttackWords,
    Compute,
    GateWords,
    LimitWords,
    MetricWords,
    ModelWords,
    PlanWords,
    ProblemUseWords,
    ProblemWords,
)
from .model import SHIPPED, CatalogLike, EntryLike, Kind
from .parameters import ParameterWords, read_parameters

Schema = dict[str, Any]


def plan_schema(catalog: CatalogLike) -> Schema:
    """A JSON Schema (2020-12) with the options and docs of every installed objective, dataset, metric and attack."""
    defs: dict[str, Schema] = {}
    _add_plugin_kind("objective", catalog, defs)
    _add_plugin_kind("dataset", catalog, defs)
    _add_plugin_kind("metric", catalog, defs)
    _add_plugin_kind("attack", catalog, defs)
    root = _model_schema(PlanWords, defs, {
        "models": _mapping(_ref(_model_def(ModelWords, "model", defs))),
        "problems": {"type": "array", "minItems": 1, "items": {"anyOf": [
            _names(catalog, "problem"), _ref("problem-use"), _ref("problem-inline")]}},
        "arms": _mapping(_ref("arm")),
        "attacks": _list(_ref("attack")),
        "metrics": _list(_ref("metric")),
        "compute": _ref(_model_def(Compute, "compute", defs)),
        "expect": _list(_ref(_model_def(GateWords, "expectation", defs))),
    })  # fmt: skip
    data = _mapping({"anyOf": [_ref("dataset"), _list(_ref("dataset"))]})
    stages = _list(_ref("objective"))
    _model_def(LimitWords, "limit", defs)
    body = {"data": data, "metrics": _list(_ref("metric")), "expect": _list(_ref("limit"))}
    brought = {"type": "object", "properties": {"stages": stages}, "additionalProperties": False}
    _model_def(ArmWords, "arm", defs, {"stages": {"anyOf": [stages, {"enum": list(SHIPPED)}]}})
    problems = catalog.entries("problem")
    uses = [_problem_use(entry, _spellings(entry, problems), defs) for entry in problems]
    defs["problem-use"] = {"anyOf": uses} if uses else {}
    _model_def(ProblemWords, "problem-inline", defs, {**body, **dict.fromkeys(("start", *SHIPPED), brought)})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "unlearn-suite plan",
        **root,
        "$defs": defs,
    }


def _add_plugin_kind(kind: Kind, catalog: CatalogLike, defs: dict[str, Schema]) -> None:
    """A definition for each entry of a kind, and one that is any of them."""
    entries = catalog.entries(kind)
    for entry in entries:
        defs[f"{kind}:{entry.qualified}"] = _entry_schema(entry, _spellings(entry, entries), defs)
    choices = [_ref(f"{kind}:{entry.qualified}") for entry in entries]
    if kind in ("metric", "attack"):
        choices.append(_names(catalog, kind))
    defs[kind] = {"anyOf": choices} if choices else {}


def _entry_schema(entry: EntryLike, spellings: list[str], defs: dict[str, Schema]) -> Schema:
    spec = entry.spec
    assert not isinstance(spec, ProblemSpec)
    options = _model_schema(spec.config, defs, {})
    own: dict[str, Schema] = {"use": {"enum": spellings, "description": spec.summary}, "with": options}
    required = ["use"]
    if options.get("required"):
        required.append("with")
    if isinstance(spec, ObjectiveSpec):
        own.update(_train(spec, defs))
    elif isinstance(spec, MetricSpec):
        own = {**_model_schema(MetricWords, defs, {})["properties"], **own}
        own["show"] = {"type": "array", "minItems": 1, "items": {"enum": list(spec.values)}}
    elif isinstance(spec, AttackSpec):
        own = {**_model_schema(AttackWords, defs, {})["properties"], **own}
    else:
        assert isinstance(spec, DatasetSpec)
    described = {"title": entry.qualified, "description": spec.summary, "type": "object"}
    return {**described, "properties": own, "required": required, "additionalProperties": False}


def _problem_use(entry: EntryLike, spellings: list[str], defs: dict[str, Schema]) -> Schema:
    """A definition of the plan's words for one problem, its parameters under `with`."""
    spec = entry.spec
    assert isinstance(spec, ProblemSpec)
    body = read_fragment(spec, Faults())
    parameters = read_parameters(body, Faults()) if body else {}
    given: Schema = {
        "type": "object",
        "properties": {name: _parameter(words) for name, words in parameters.items()},
        "additionalProperties": False,
    }
    needed = [name for name, words in parameters.items() if words.required]
    if needed:
        given["required"] = needed
    names = {"enum": spellings, "description": spec.summary}
    changes: dict[str, Schema] = {
        "data": {"type": "object"},
        "metrics": {"type": "object"},
        "expect": _list(_ref("limit")),
    }
    use = {"use": names, "with": given, **changes}
    name = _model_def(ProblemUseWords, f"problem:{entry.qualified}", defs, use)
    if needed:
        defs[name]["required"] = ["use", "with"]
    return _ref(name)


def _parameter(words: ParameterWords) -> Schema:
    schema: Schema = {"description": words.summary} | ({} if words.required else {"default": words.default})
    if words.type == "any":
        return schema
    kind = {"text": "string", "path": "string", "flag": "boolean", "list": "array"}.get(words.type, words.type)
    optional = not words.required and words.default is None
    return {**schema, "type": [kind, "null"] if optional else kind}


def _train(spec: ObjectiveSpec, defs: dict[str, Schema]) -> dict[str, Schema]:
    """The keys of a stage, with this objective's own defaults."""
    properties: dict[str, Schema] = _model_schema(Train, defs, {})["properties"]
    return {
        name: {**schema, **({"default": spec.train[name]} if name in spec.train else {})}
        for name, schema in properties.items()
    }


def _spellings(entry: EntryLike, entries: Sequence[EntryLike]) -> list[str]:
    unique = sum(other.spec.name == entry.spec.name for other in entries) == 1
    return [entry.spec.name, entry.qualified] if unique else [entry.qualified]


def _names(catalog: CatalogLike, kind: Kind) -> Schema:
    entries = catalog.entries(kind)
    return {"enum": [name for entry in entries for name in _spellings(entry, entries)]}


def _model_def(
    model: type[BaseModel], name: str, defs: dict[str, Schema], replace: dict[str, Schema] | None = None
) -> str:
    defs[name] = _model_schema(model, defs, replace or {})
    return name


def _model_schema(model: type[BaseModel], defs: dict[str, Schema], replace: dict[str, Schema]) -> Schema:
    """A pydantic model's schema; its own definitions move to the common ones under names of their own."""
    prefix = f"{model.__module__}.{model.__qualname__}."
    schema = model.model_json_schema(by_alias=True, ref_template=f"#/$defs/{prefix}{{model}}")
    for name, definition in schema.pop("$defs", {}).items():
        defs[f"{prefix}{name}"] = definition
    properties = schema.setdefault("properties", {})
    for name, replacement in replace.items():
        kept = {key: value for key, value in properties.get(name, {}).items() if key == "description"}
        properties[name] = {**kept, **replacement}
    return schema


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _mapping(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}
