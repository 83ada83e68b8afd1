"""Pairs of a toxic sentence and its neutral rewrites, in ParaDetox's files (Logacheva et al., ACL 2022) or the hub.

The release is a table with the columns toxic, neutral1, neutral2, neutral3; on the hub they are en_toxic_comment and
en_neutral_comment. Any table with a column `toxic` and columns that begin with `neutral` will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import Field

from unlearn_suite import Example, records

from .split import Part, place, taken

Form = Literal["toxic", "neutral", "pairs", "prompts"]
HUB = "s-nlp/paradetox"
_VERSION = "paradetox 1"


class ParadetoxConfig(records.Source):
    """Which pairs, and what of them."""

    path: Path | None = None
    """table of pairs (.tsv, .csv, .jsonl, .parquet), or a folder with one such file (none = the hub)"""
    form: Form = "toxic"
    """toxic: the toxic sentences; neutral: their rewrites, one example each; pairs: toxic sentence and first rewrite as
    two choices; prompts: the first half of the toxic sentence, its second half the text"""
    part: Part = "all"
    """a fixed split by toxic sentence: train 60 %, test 40 %"""
    limit: int | None = Field(None, ge=1)
    """largest number of pairs, in an order by hash, so that any number is a fair sample (none = no limit)"""


@dataclass(frozen=True)
class Pair:
    """A toxic sentence with its rewrites."""

    id: str
    toxic: str
    neutral: tuple[str, ...]


def load(config: ParadetoxConfig) -> Sequence[Example]:
    """The examples, pair by pair. Sentences without a rewrite are left out, and rewrites that are toxic sentences of
    another pair."""
    pairs = _pairs(config)
    toxic = {pair.toxic for pair in pairs}
    placed = sorted((place(_VERSION, pair.toxic), pair.id, pair) for pair in pairs)
    chosen = [pair for at, _, pair in placed if taken(at, config.part)][: config.limit]
    return [example for pair in chosen for example in _examples(pair, config.form, toxic)]


def _pairs(config: ParadetoxConfig) -> list[Pair]:
    """Every toxic sentence once, with all its rewrites."""
    found: dict[str, list[str]] = {}
    for record in _rows(config):
        name = "toxic" if "toxic" in record else "en_toxic_comment"
        columns = [key for key in record.columns if "neutral" in key]
        if not columns:
            raise record.fault("there is no column whose name holds `neutral`", "name them toxic, neutral1, neutral2")
        texts = [str(record.columns[key] or "").strip() for key in columns]
        sentence = str(record.get(name) or "").strip()
        if sentence and any(texts):
            found.setdefault(sentence, []).extend(text for text in texts if text)
    return [
        Pair(f"paradetox/{sha256(sentence.encode()).hexdigest()[:16]}", sentence, tuple(dict.fromkeys(rewrites)))
        for sentence, rewrites in found.items()
    ]


def _rows(config: ParadetoxConfig) -> Iterator[records.Record]:
    if config.path is None:
        hint = "connect once, or give `path`: paradetox.tsv of github.com/s-nlp/paradetox"
        yield from records.hub(HUB, revision=config.revision, hint=hint)
        return
    for file in records.find_files(config.path, *(f"*{suffix}" for suffix in records.SUFFIXES)):
        yield from records.read(file)


def _examples(pair: Pair, form: Form, toxic: set[str]) -> Iterator[Example]:
    if form == "toxic":
        yield Example(pair.id, text=pair.toxic, group="toxic")
    elif form == "pairs":
        yield Example(pair.id, text=pair.toxic, choices=(pair.toxic, pair.neutral[0]), group="pairs")
    elif form == "prompts":
        words = pair.toxic.split()
        half = (len(words) + 1) // 2
        if half < len(words):
            rest = " ".join(words[half:])
            yield Example(pair.id, prompt=" ".join(words[:half]), text=f" {rest}", group="prompts")
    else:
        for index, text in enumerate(pair.neutral):
            if text not in toxic:
                yield Example(f"{pair.id}/{index}", text=text, group="neutral", unit=pair.id)
