"""RWKU's probes from its hub layout, its Target folders or files of one level, as prompts or as text to train on.

Prompts are those of the authors' evaluation without a chat template: they ask to complete a blank (level 1), or to
answer briefly (levels 2 and 3), and end with "Answer:"; probes of the type "affirmative suffix" end with their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from unlearn_suite import Example, PlanError, records

ProbeSet = Literal[
    "forget-level1", "forget-level2", "forget-level3", "neighbour-level1", "neighbour-level2", "passages"
]  # fmt: skip
HUB = "jinzhuoran/RWKU"
_NAMES = {
    "forget-level1": ("forget_level1", "forget_level1"),
    "forget-level2": ("forget_level2", "forget_level2"),
    "forget-level3": ("forget_level3", "forget_level3"),
    "neighbour-level1": ("neighbor_level1", "neighbor_level1"),
    "neighbour-level2": ("neighbor_level2", "neighbor_level2"),
    "passages": ("train_original_passage", "passage"),
}
"""name on the hub, and name of the file in a Target folder"""
_BLANK = "Please complete the blank in the following question.\nQuestion: {query}\nAnswer:"
_BRIEF = "Please briefly answer the following question.\nQuestion: {query}\nAnswer:"
_SHOTS = "Please briefly answer the following question.\n{query}\nAnswer:"
_SUFFIX = "Please briefly answer the following question.\nQuestion: {query}"
_GAP = re.compile("_{3,}")
_STATED = "Question: {}\nAnswer: {}"
_VERSION = "rwku 2"
_TRAIN_SHARE = 0.5


class RwkuConfig(records.Source):
    """Which probes, about whom, and in which form."""

    path: Path | None = None
    """folder with forget_level1.json(l) and so on, or RWKU's own Target folders, or one file (none = the hub)"""
    sets: tuple[ProbeSet, ...] = Field(("forget-level2",), min_length=1)
    """forget-level1 (a blank), forget-level2 (a question), forget-level3 (nine types of attack), neighbour-level1 and
    -level2 (what stands beside the person), passages (their Wikipedia articles)"""
    people: tuple[str, ...] | None = Field(None, min_length=1)
    """names as RWKU writes them (none = all that are there)"""
    without: tuple[str, ...] = ()
    """names to leave out"""
    form: Literal["prompts", "statements"] = "prompts"
    """prompts: what is asked, the answer its text; statements: question and answer as one text to train on"""
    part: Literal["all", "train", "held-out"] = "all"
    """all, or a half by the hash of person and answer, so that no fact that is trained on is asked in other words:
    train (to be trained on) or held-out; every passage is in train"""
    limit: int | None = Field(None, ge=1)
    """largest number of probes per person and set, in the order of the files (none = no limit)"""

    @model_validator(mode="after")
    def _someone_is_left(self) -> RwkuConfig:
        if self.people is not None and not set(self.people) - set(self.without):
            raise ValueError("`without` leaves none of `people`")
        return self


def load(config: RwkuConfig) -> Sequence[Example]:
    """The examples, set by set. `group` is the person, at level 3 the type of attack."""
    if config.path is not None and config.path.is_file() and len(config.sets) > 1:
        raise PlanError("`path` is a file, and `sets` names several", code="data-file", where=str(config.path))
    examples: list[Example] = []
    known: dict[str, None] = {}
    for name in config.sets:
        counts: dict[str, int] = {}
        for index, record in enumerate(_records(config, name)):
            person = record.text("subject").strip()
            known.setdefault(person)
            example = _example(record, name, person, index, config.form)
            trains = name == "passages" or records.share(_VERSION, example.unit) < _TRAIN_SHARE
            if counts.get(person, 0) != config.limit and _meant(config, person, trains):
                counts[person] = counts.get(person, 0) + 1
                examples.append(example)
    records.chosen(config.people, known, "person", str(config.path or f"hf:{HUB}"))
    return examples


def _meant(config: RwkuConfig, person: str, trains: bool) -> bool:
    asked = (config.people is None or person in config.people) and person not in config.without
    return asked and (config.part == "all" or trains == (config.part == "train"))


def _records(config: RwkuConfig, name: ProbeSet) -> Iterator[records.Record]:
    on_hub, in_folder = _NAMES[name]
    if config.path is None:
        split = "train" if name == "passages" else "test"
        hint = "connect once, or give `path`: the files of huggingface.co/datasets/jinzhuoran/RWKU"
        yield from records.hub(HUB, name=on_hub, split=split, revision=config.revision, hint=hint)
        return
    stems = dict.fromkeys((on_hub, in_folder))
    patterns = [
        pattern
        for stem in stems
        for suffix in records.SUFFIXES
        for pattern in (f"{stem}{suffix}", f"*/{stem}{suffix}", f"{stem}/*{suffix}", f"*/{stem}/*{suffix}")
    ]
    try:
        files = records.find_files(config.path, *patterns)
    except PlanError as error:
        error.message = f"the folder has no {name} of RWKU"
        error.hint = f"it should hold {on_hub}.jsonl; else name other sets than {name}"
        raise
    depth = min(len(file.parts) for file in files)  # the hub has every probe in `All/` and deeper in `Target/` again
    for file in files:
        if len(file.parts) == depth:
            yield from records.read(file)


def _example(record: records.Record, name: ProbeSet, person: str, index: int, form: str) -> Example:
    if name == "passages":
        return Example(f"rwku/{name}/{index}", text=record.text("text"), group=person, unit=_unit(record.text("text")))
    query, answer = record.text("query").strip(), str(record.get("answer")).strip()
    if not answer:
        raise record.fault("it has no answer")
    kind = str(record.columns.get("type") or "")
    group = (kind or "attack") if name == "forget-level3" else person
    identity, unit = f"rwku/{name}/{index}", _unit(f"{person}: {answer}")
    if form == "statements":
        filled = _GAP.sub(lambda _: answer, query, count=1) if _GAP.search(query) else _STATED.format(query, answer)
        return Example(identity, text=filled, group=group, unit=unit)
    template = _BLANK if name.endswith("level1") else _asked(kind, name)
    return Example(identity, prompt=template.format(query=query), text=f" {answer}", group=group, unit=unit)


def _asked(kind: str, name: ProbeSet) -> str:
    if name == "forget-level3" and kind == "affirmative suffix":
        return _SUFFIX
    return _SHOTS if name == "forget-level3" and kind == "incontext learning" else _BRIEF


def _unit(text: str) -> str:
    """What resampling and the split keep together: the fact, person and answer (or a passage)."""
    return sha256(" ".join(text.split()).casefold().encode()).hexdigest()[:16]
