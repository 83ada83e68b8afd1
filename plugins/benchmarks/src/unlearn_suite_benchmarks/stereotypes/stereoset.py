"""StereoSet from the release's dev.json, from lists of its items in other files, or from the hub.

An item has a context, a target term and three texts: a stereotype, an anti-stereotype and an unrelated one. The texts
of intrasentence items fill a blank of one sentence, those of intersentence items follow the context.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from unlearn_suite import Example, PlanError, records

from .split import Part, place, taken

Kind = Literal["intrasentence", "intersentence"]
KINDS: tuple[Kind, ...] = ("intrasentence", "intersentence")
LABELS = ("stereotype", "anti-stereotype", "unrelated")
HUB = "McGill-NLP/stereoset"
_HUB_LABELS = ("anti-stereotype", "stereotype", "unrelated")


class StereosetConfig(records.Source):
    """Which items, and what of them."""

    path: Path | None = None
    """dev.json of the release, or a folder with it or with lists of items (.json); none = the hub"""
    form: Literal["triples", "stereotypes", "counterparts"] = "triples"
    """triples: stereotype, anti-stereotype and unrelated text as choices; stereotypes, counterparts: one of the first
    two"""
    kinds: tuple[Kind, ...] = Field(("intrasentence",), min_length=1)
    """intrasentence: a blank inside a sentence; intersentence: a sentence after the context"""
    bias: tuple[str, ...] | None = None
    """kinds of bias: gender, profession, race, religion (none = all)"""
    part: Part = "all"
    """a fixed split by stereotype: train 60 %, test 40 %"""
    limit: int | None = Field(None, ge=1)
    """largest number of items, in an order by hash (none = no limit)"""


def load(config: StereosetConfig) -> Sequence[Example]:
    """One example per item: `group` the kind of bias, `unit` the target term. Counterparts that are a stereotype
    elsewhere are left out."""
    items = [(kind, item, _texts(item)) for kind, item in _items(config) if kind in config.kinds]
    stereotypes = {texts[0] for _, _, texts in items}
    found: list[tuple[float, str, Example]] = []
    for kind, item, texts in items:
        at = place(texts[0])
        if taken(at, config.part) and (config.form != "counterparts" or texts[1] not in stereotypes):
            example = _example(config, kind, item, texts)
            found.append((at, example.id, example))
    known = sorted({item.text("bias_type") for _, item, _ in items})
    kinds = records.chosen(config.bias, known, "kind of bias", str(config.path or f"hf:{HUB}"))
    ordered = sorted((row for row in found if row[2].group in kinds), key=lambda row: row[:2])
    return [example for _, _, example in ordered][: config.limit]


def _example(config: StereosetConfig, kind: str, item: records.Record, texts: tuple[str, str, str]) -> Example:
    prompt = item.text("context").strip() if kind == "intersentence" else ""
    text = texts[1] if config.form == "counterparts" else texts[0]
    return Example(
        f"stereoset/{kind}/{item.columns.get('id') or item.place.rpartition('/')[2]}",
        text=f" {text}" if prompt else text,
        prompt=prompt,
        choices=texts if config.form == "triples" else (),
        group=item.text("bias_type"),
        unit=f"{item.text('bias_type')}/{item.text('target')}",
    )


def _items(config: StereosetConfig) -> Iterator[tuple[str, records.Record]]:
    """(kind, item)."""
    if config.path is None:
        hint = "connect once, or give `path`: dev.json of github.com/moinnadeem/StereoSet"
        for kind in config.kinds:
            rows = records.hub(HUB, name=kind, split="validation", revision=config.revision, hint=hint)
            yield from ((kind, row) for row in rows)
        return
    for file in records.find_files(config.path, "*.json"):
        yield from _of_file(file, records.read_json(file))


def _of_file(file: Path, value: Any) -> Iterator[tuple[str, records.Record]]:
    """dev.json ({"data": {"intrasentence": [...], "intersentence": [...]}}), or a list of intrasentence items."""
    lists = {"intrasentence": value}
    if isinstance(value, Mapping):
        inside = value.get("data")
        lists = {kind: inside.get(kind, []) for kind in KINDS} if isinstance(inside, Mapping) else {}
    if not lists or not all(isinstance(items, list) for items in lists.values()):
        raise PlanError(
            "it holds no items of StereoSet", code="data", where=str(file), hint="give the release's dev.json"
        )
    for kind, items in lists.items():
        for index, item in enumerate(items):
            place_of = f"{file} {kind} item {index}"
            if not isinstance(item, Mapping):
                raise PlanError("the item is no mapping", code="data", where=place_of)
            yield kind, records.Record(place_of, item)


def _texts(item: records.Record) -> tuple[str, str, str]:
    """(stereotype, anti-stereotype, unrelated) of an item in any of its layouts."""
    told: Any = item.columns.get("sentences", item.columns.get("data"))
    found: dict[str, str] = {}
    if isinstance(told, list):  # the release
        found = {str(one.get("gold_label")): str(one.get("sentence")) for one in told}
    elif isinstance(told, Mapping) and isinstance(told.get("sentence"), Sequence):  # the hub: columns of lists
        found = {
            _HUB_LABELS[label] if isinstance(label, int) else str(label): str(text)
            for label, text in zip(told.get("gold_label", ()), told["sentence"], strict=True)
        }
    elif isinstance(told, Mapping):  # {label: {"sentence": ...}}
        found = {label: str(one.get("sentence")) for label, one in told.items() if isinstance(one, Mapping)}
    texts = tuple(found.get(label, "").strip() for label in LABELS)
    if not all(texts):
        missing = next(label for label, text in zip(LABELS, texts, strict=True) if not text)
        raise item.fault(f"it has no {missing} sentence", "each item needs " + ", ".join(LABELS))
    return texts[0], texts[1], texts[2]
