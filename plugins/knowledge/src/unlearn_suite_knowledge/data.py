"""The everyday-knowledge set: small true facts, each in several wordings, split by fact.

A subject is one YAML file in data/: kinds of facts, and per kind the training sentences, the cloze prompts
(in wordings that no training sentence has) and the facts themselves, `x: y`. Templates name the two sides
`{x}` and `{y}`, or `{X}` and `{Y}` at the start of a sentence; a cloze prompt ends where `y` would follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Literal, get_args

import yaml
from pydantic import Field, model_validator

from unlearn_suite import Config, Example

SubjectName = Literal[
    "capitals",
    "chemical-symbols",
    "continents",
    "languages",
    "opposites",
    "animals",
    "human-body",
    "astronomy",
    "inventions",
    "books",
    "famous-people",
]
Part = Literal["train", "attack", "test"]

SUBJECTS: tuple[str, ...] = get_args(SubjectName)
N_DISTRACTORS = 3
_VERSION = "everyday-knowledge 1"


class KnowledgeConfig(Config):
    """Which facts of everyday-knowledge, and in which form."""

    subjects: tuple[SubjectName, ...] | None = None
    """subjects to take (none = all)"""
    exclude: tuple[SubjectName, ...] = ()
    """subjects to leave out"""
    form: Literal["sentences", "cloze", "choice"] = "sentences"
    """`sentences`: training text; `cloze`: an unfinished sentence and the answer as its continuation;
    `choice`: the same unfinished sentence with four possible continuations"""
    part: Literal["train", "attack", "test", "all"] = "train"
    """a fixed split by fact: train 60 %, attack (what a relearning attacker is given) 20 %, test 20 %"""
    limit: int | None = Field(None, ge=1)
    """largest number of facts per subject, in a fixed order (none = no limit)"""

    @model_validator(mode="after")
    def _not_empty(self) -> KnowledgeConfig:
        if not self.names():
            raise ValueError("`exclude` leaves no subject")
        return self

    def names(self) -> tuple[str, ...]:
        """The subjects that are meant, in the set's own order."""
        chosen = SUBJECTS if self.subjects is None else self.subjects
        return tuple(name for name in SUBJECTS if name in chosen and name not in self.exclude)


@dataclass(frozen=True)
class Fact:
    """One fact: `sentences` state it, each of `cloze` asks for `answer`, `distractors` are wrong answers."""

    id: str
    subject: str
    kind: str
    x: str
    answer: str
    sentences: tuple[str, ...]
    cloze: tuple[str, ...]
    distractors: tuple[str, ...]
    part: Part = "train"


@dataclass(frozen=True)
class Kind:
    """Facts `x: y` that share templates.

    `others` are more wrong answers of the same type; `also` gives, by `x`, further answers that are right
    and so must not be offered as wrong ones.
    """

    name: str
    sentences: tuple[str, ...]
    cloze: tuple[str, ...]
    facts: dict[str, str]
    others: tuple[str, ...]
    also: dict[str, tuple[str, ...]]


def _hash(*words: str) -> int:
    return int.from_bytes(sha256("\n".join((_VERSION, *words)).encode()).digest(), "big")


def _source(subject: str) -> str:
    return (files(__package__) / "data" / f"{subject}.yaml").read_text(encoding="utf-8")


def read_kinds(text: str) -> list[Kind]:
    """The kinds of a subject file. All scalars stay strings (`No` is nobelium, `on` a word)."""
    kinds = yaml.load(text, Loader=yaml.BaseLoader)["kinds"]
    return [
        Kind(
            name=name,
            sentences=tuple(kind["sentences"]),
            cloze=tuple(kind["cloze"]),
            facts=dict(kind["facts"]),
            others=tuple(kind.get("others", ())),
            also={x: tuple(right) for x, right in kind.get("also", {}).items()},
        )
        for name, kind in kinds.items()
    ]


def fill(template: str, x: str, y: str = "") -> str:
    """The template with both sides put in."""
    return template.format(x=x, y=y, X=x[:1].upper() + x[1:], Y=y[:1].upper() + y[1:])


def _distractors(kind: Kind, fact_id: str, x: str) -> tuple[str, ...]:
    right = {word.casefold() for word in (kind.facts[x], *kind.also.get(x, ()))}
    pool = {word for word in (*kind.facts.values(), *kind.others) if word.casefold() not in right}
    ordered = sorted(pool, key=lambda word: _hash("distractor", fact_id, word))
    return tuple(ordered[:N_DISTRACTORS])


def _facts_of(subject: str, kind: Kind) -> Iterator[Fact]:
    for x, y in kind.facts.items():
        fact_id = f"{subject}/{kind.name}/{x.replace(' ', '-')}"
        yield Fact(
            id=fact_id,
            subject=subject,
            kind=kind.name,
            x=x,
            answer=y,
            sentences=tuple(fill(template, x, y) for template in kind.sentences),
            cloze=tuple(fill(template, x) for template in kind.cloze),
            distractors=_distractors(kind, fact_id, x),
        )


@cache
def load_subject(name: str) -> tuple[Fact, ...]:
    """All facts of a subject, in an order fixed by hash, so that any prefix is a fair sample.

    The parts are cut from that order, so that every subject has exactly its share of each.
    """
    facts = [fact for kind in read_kinds(_source(name)) for fact in _facts_of(name, kind)]
    facts.sort(key=lambda fact: _hash("order", fact.id))
    return tuple(replace(fact, part=_part(i / len(facts))) for i, fact in enumerate(facts))


def _part(place: float) -> Part:
    return "train" if place < 0.6 else "attack" if place < 0.8 else "test"


def select(config: KnowledgeConfig) -> list[Fact]:
    """The facts a config asks for, subject by subject."""
    chosen: list[Fact] = []
    for name in config.names():
        facts = [fact for fact in load_subject(name) if config.part in ("all", fact.part)]
        chosen += facts[: config.limit]
    return chosen


def _sentences(fact: Fact) -> Iterator[Example]:
    for i, sentence in enumerate(fact.sentences):
        yield Example(id=f"{fact.id}/s{i}", text=sentence, group=fact.subject, unit=fact.id)


def _cloze(fact: Fact) -> Iterator[Example]:
    for i, prompt in enumerate(fact.cloze):
        text = f" {fact.answer}"
        yield Example(id=f"{fact.id}/c{i}", prompt=prompt, text=text, group=fact.subject, unit=fact.id)


def _choice(fact: Fact) -> Iterator[Example]:
    words = sorted((fact.answer, *fact.distractors), key=lambda word: _hash("option", fact.id, word))
    options = tuple(f" {word}" for word in words)
    right = words.index(fact.answer)
    for i, prompt in enumerate(fact.cloze):
        yield Example(
            id=f"{fact.id}/m{i}",
            text=options[right],
            prompt=prompt,
            choices=options,
            answer=right,
            group=fact.subject,
            unit=fact.id,
        )


_FORMS = {"sentences": _sentences, "cloze": _cloze, "choice": _choice}


def load(config: KnowledgeConfig) -> Sequence[Example]:
    """The examples of a config, always the same ones in the same order."""
    return [example for fact in select(config) for example in _FORMS[config.form](fact)]


def fingerprint(config: KnowledgeConfig) -> str:
    """A hash of the config and of the subject files it reads."""
    digest = sha256(f"{_VERSION}\n{config.model_dump_json()}\n".encode())
    for name in config.names():
        digest.update(_source(name).encode())
    return digest.hexdigest()
