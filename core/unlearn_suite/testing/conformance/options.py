"""Checks of options models: documented, with valid defaults, strict, and the same after a trip through JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from ...plan.check import models_in
from ...specs import Config
from .check import CheckFailed, check
from .subject import Subject, config_of


def _models(config: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and those it speaks of."""
    yield config
    for field in config.model_fields.values():
        for inner in models_in(field.annotation):
            yield from _models(inner)


def _config(subject: Subject) -> type[Config]:
    found = config_of(subject)
    assert found is not None
    return found


@check("OPT-DOCS", "options", "every option has a docstring")
def options_are_documented(subject: Subject) -> None:
    bare = [
        f"{model.__name__}.{name}"
        for model in _models(_config(subject))
        for name, field in model.model_fields.items()
        if not (field.description or "").strip()
    ]
    if bare:
        raise CheckFailed(f"{', '.join(bare)}: no docstring below the field; it should tell meaning, unit and range")


@check("OPT-DEFAULTS", "options", "the defaults pass their own validation")
def defaults_are_valid(subject: Subject) -> None:
    for case in subject.cases():
        subject.options(case)
    for model in dict.fromkeys(_models(_config(subject))):
        defaults = {
            field.alias or name: field.get_default(call_default_factory=True)
            for name, field in model.model_fields.items()
            if not field.is_required()
        }
        for key, value in defaults.items():
            told = value.model_dump(by_alias=True) if isinstance(value, BaseModel) else value
            try:
                model.__pydantic_validator__.validate_python({key: told})
            except ValidationError as error:
                own = [e for e in error.errors() if e["loc"][:1] == (key,)]
                if own:
                    message = f"the default {value!r} of {model.__name__}.{key}: {own[0]['msg']}"
                    raise CheckFailed(message) from error


@check("OPT-STRICT", "options", "unknown keys are refused and options cannot be changed")
def unknown_keys_are_refused(subject: Subject) -> None:
    for model in dict.fromkeys(_models(_config(subject))):
        if model.model_config.get("extra") != "forbid":
            raise CheckFailed(f"{model.__name__} takes keys that it does not know: derive it from unlearn_suite.Config")
        if not model.model_config.get("frozen"):
            raise CheckFailed(f"{model.__name__} can be changed: derive it from unlearn_suite.Config")


@check("OPT-JSON", "options", "options are the same after a trip through JSON, and their schema names each of them")
def options_survive_json(subject: Subject) -> None:
    model = _config(subject)
    schema: dict[str, Any] = json.loads(json.dumps(model.model_json_schema()))
    named = set(schema.get("properties", {}))
    wanted = {field.alias or name for name, field in model.model_fields.items()}
    if named != wanted:
        raise CheckFailed(f"the JSON schema lacks {', '.join(sorted(wanted - named))}")
    for case in subject.cases():
        config = subject.options(case)
        again = model.model_validate_json(config.model_dump_json(by_alias=True), strict=True)
        if again != config:
            changed = [name for name in model.model_fields if getattr(again, name) != getattr(config, name)]
            raise CheckFailed(f"{', '.join(changed)}: not the same after writing as JSON and reading again")


@check("OPT-TARGET", "options", "the code that the spec names is there and of the right kind")
def target_is_there(subject: Subject) -> None:
    found = subject.target()
    kind = subject.spec.kind
    if kind == "dataset":
        if not callable(found):
            raise CheckFailed(f"{subject.spec.load} is no function")
        return
    from ...engine.attack import Attack
    from ...engine.objective import Objective
    from ...evaluate.metric import Metric

    base: type = {"objective": Objective, "metric": Metric, "attack": Attack}[kind]
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CheckFailed(f"{subject.spec.load} is no subclass of {base.__name__}")
