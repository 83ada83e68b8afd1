"""Checks of datasets: the same examples in the same order everywhere, told apart by their fingerprint."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from ...errors import SuiteError
from ...specs import Config, Example
from .check import CheckFailed, Skipped, check
from .fresh import answer_of, digest
from .subject import Subject

MOST_VARIANTS = 24
SPLIT_FIELDS = ("part", "split")
ALL = "all"


def _load(subject: Subject, config: Config) -> list[Example]:
    return list(subject.target()(config))


def _configs(subject: Subject) -> list[Config]:
    return [subject.options(case) for case in subject.cases()]


def asked_of(subject: Subject) -> list[tuple[str, dict[str, Any]]]:
    """(name, options) of all datasets of the subject's plugin, for the process of its own."""
    from .subject import find_subjects, plugin_name

    asked = []
    for other in find_subjects(subject.catalog, plugin_name(subject.report), subject.files):
        if other.area != "dataset" or (other.unavailable("DATA-ORDER") and other.unavailable("DATA-FINGERPRINT")):
            continue
        try:
            asked += [(other.spec.name, config.model_dump(mode="json")) for config in _configs(other)]
        except SuiteError:
            continue  # told by the checks of that dataset
    return asked


@check("DATA-EXAMPLES", "dataset", "it yields valid examples with ids of their own")
def examples_are_valid(subject: Subject) -> None:
    for config in _configs(subject):
        found = _load(subject, config)
        if fault := fault_of(found):
            raise CheckFailed(fault)


def fault_of(examples: Sequence[Any]) -> str:
    """What is wrong with examples, "" if nothing."""
    if not examples:
        return "there are no examples"
    seen: set[str] = set()
    for example in examples:
        if not isinstance(example, Example):
            return f"it yields {type(example).__name__}, not Example"
        if not example.id or example.id in seen:
            return f"two examples have the id {example.id!r}" if example.id else "an example has no id"
        seen.add(example.id)
        if not (example.text or example.prompt):
            return f"example {example.id!r} has neither text nor prompt"
        if example.answer is not None and not 0 <= example.answer < len(example.choices):
            return f"the answer of example {example.id!r} is none of its choices"
    return ""


@check("DATA-ORDER", "dataset", "the same options give the same examples in the same order, in every process")
def order_is_fixed(subject: Subject) -> None:
    theirs = [
        answer
        for (name, _), answer in zip(asked_of(subject), answer_of(subject)["datasets"], strict=True)
        if name == subject.spec.name
    ]
    for config, other in zip(_configs(subject), theirs, strict=True):
        marks = []
        for seed in (1, 2):
            random.seed(seed)
            marks.append(digest(_load(subject, config)))
        if marks[0] != marks[1]:
            raise CheckFailed("loading it twice gives other examples, or another order")
        if other.get("examples") != marks[0]:
            told = other.get("error") or "another process gives other examples, or another order (sets? hash()?)"
            raise CheckFailed(told)


@check("DATA-FINGERPRINT", "dataset", "its fingerprint is stable, and differs when the examples do")
def fingerprint_tells(subject: Subject) -> None:
    if not subject.spec.fingerprint:
        raise Skipped("it has none; the host hashes its examples")
    from ...plugins import load_target

    mark = load_target(subject.spec.fingerprint)
    theirs = [
        answer.get("fingerprint")
        for (name, _), answer in zip(asked_of(subject), answer_of(subject)["datasets"], strict=True)
        if name == subject.spec.name
    ]
    known: dict[str, tuple[str, Config]] = {}
    for config, other in zip(_configs(subject), theirs, strict=True):
        if not mark(config) == mark(config) == other:
            raise CheckFailed("its fingerprint is another one each time, or in another process")
        for variant in (config, *variants(config)):
            try:
                examples, found = digest(_load(subject, variant)), mark(variant)
            except (SuiteError, OSError, ValueError):
                continue  # options that do not go together
            before, first = known.setdefault(found, (examples, variant))
            if before != examples:
                raise CheckFailed(f"{_options(variant)} and {_options(first)} have one fingerprint and other examples")


def _options(config: Config) -> str:
    return str(config.model_dump(mode="json", exclude_defaults=True))


def variants(config: Config) -> Iterator[Config]:
    """The same options with one of them changed, for options whose other values are known."""
    made = 0
    for name, field in type(config).model_fields.items():
        for value in _other_values(field.annotation, getattr(config, name)):
            if made == MOST_VARIANTS:
                return
            try:
                changed = {key: getattr(config, key) for key in config.model_fields_set} | {name: value}
                yield type(config)(**{_key(config, key): item for key, item in changed.items()})
                made += 1
            except ValidationError:
                continue


def _key(config: Config, name: str) -> str:
    return type(config).model_fields[name].alias or name


def _other_values(annotation: Any, value: Any) -> list[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bool:
        return [not value]
    if origin is Literal:
        return [other for other in arguments if other != value]
    if origin in (Union, UnionType):
        return [other for part in arguments for other in _other_values(part, value)]
    if annotation is int:
        return [other for other in (1, 2) if other != value]
    if origin in (tuple, list) and arguments:
        return [[other] for other in _other_values(arguments[0], None)[:3]]
    return []


@check("DATA-SPLITS", "dataset", "its splits share no example")
def splits_are_disjoint(subject: Subject) -> None:
    told = subject.told.words.splits
    for config in _configs(subject):
        splits = told or {name: values for name in SPLIT_FIELDS if (values := _literals(type(config), name))}
        if not splits:
            raise Skipped("it has no option named part or split; name another one under `splits`")
        for name, values in splits.items():
            _check_disjoint(subject, config, name, values)


def _literals(config: type[Config], name: str) -> list[str]:
    field = config.model_fields.get(name)
    if field is None or get_origin(field.annotation) is not Literal:
        return []
    return [value for value in get_args(field.annotation) if value != ALL]


def _check_disjoint(subject: Subject, config: Config, name: str, values: Sequence[str]) -> None:
    owner: dict[str, str] = {}
    for value in values:
        changed = {**{key: getattr(config, key) for key in config.model_fields_set}, name: value}
        for example in _load(subject, type(config)(**{_key(config, key): item for key, item in changed.items()})):
            for mark in {f"unit {example.unit or example.id}", f"text {example.prompt}{example.text}"}:
                first = owner.setdefault(mark, value)
                if first != value:
                    raise CheckFailed(f"{name} {first} and {name} {value} share the {mark[:80]!r}")
