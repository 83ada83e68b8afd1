"""passages: any text as passages of some words, whole or as beginnings with their continuations, split once for all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from unlearn_suite import Config, Example, PlanError, records

_WORD = re.compile(r"\s*\S+")
_VERSION = "passages 1"


class PassagesConfig(Config):
    """A file of text, and how it is cut and split."""

    path: Path
    """plain text (.txt, .txt.gz), which is cut into passages; or records (.jsonl, .json, .csv, .parquet) with a column
    `text`, and `prompt` if there is one, each of which is a passage"""
    form: Literal["passages", "continuations", "beginnings"] = "passages"
    """passages: running text; continuations: the first half of the words (or the record's prompt) is given; beginnings:
    what is given alone, without what is asked (a text of one word has none)"""
    part: Literal["forget", "held-out", "all"] = "all"
    """a fixed split by passage; `held_out` says how much is kept out of the training"""
    held_out: float = Field(0.25, ge=0, lt=1)
    """share of the passages in the part held-out"""
    words: int = Field(96, ge=2)
    """words of a passage of plain text; a shorter rest counts from half of that on"""
    group: str = ""
    """what results are grouped by, such as member and non-member"""
    limit: int | None = Field(None, ge=1)
    """largest number of passages, from the top (none = no limit)"""


def load(config: PassagesConfig) -> Sequence[Example]:
    """The passages of a part in the order of the file; a passage that comes again is left out.

    Raises `PlanError` for a file that cannot be read, holds no text, or is too short for its split.
    """
    known: dict[str, Example] = {}
    for example in _passages(config):
        known.setdefault(" ".join(f"{example.prompt} {example.text}".split()), example)
    passages = list(known.values())
    if not passages:
        raise PlanError("there is no passage in it", code="data", where=str(config.path), hint="lower `words`")
    if config.held_out and config.part != "all" and len(passages) < 2:
        hint = "give more text, lower `words`, or set held_out: 0"
        raise PlanError("one passage cannot be split", code="data", where=str(config.path), hint=hint)
    chosen = _part(passages, config)[: config.limit]
    if config.form != "passages":
        chosen = [_continued(example) for example in chosen]
    if config.form == "beginnings":
        chosen = [replace(example, prompt="", text=example.prompt) for example in chosen if example.prompt.strip()]
        if not chosen:
            hint = "drop the role that wants beginnings, as in data: {attack: null}"
            raise PlanError("every text is one word", code="data", where=str(config.path), hint=hint)
    return chosen


def cut_words(text: str, words: int) -> list[str]:
    """Pieces of `words` words, spaced as in the text; a rest below half of that is left out, unless it is all."""
    spans = [match.span() for match in _WORD.finditer(text)]
    starts = range(0, len(spans), words)
    ends = [min(start + words, len(spans)) for start in starts]
    whole = [(a, b) for a, b in zip(starts, ends, strict=True) if a == 0 or (b - a) * 2 >= words]
    return [text[spans[a][0] : spans[b - 1][1]].strip() for a, b in whole]


def _passages(config: PassagesConfig) -> Iterator[Example]:
    name = config.path.name.removesuffix(".gz")
    stem = name.rpartition(".")[0] or name
    if name.endswith(".txt"):
        for number, text in enumerate(cut_words(records.read_text(config.path), config.words), start=1):
            yield Example(f"{stem}:{number}", text=text, group=config.group)
        return
    for number, record in enumerate(records.read(config.path), start=1):
        prompt = record.text("prompt") if record.columns.get("prompt") else ""
        text = records.continuing(prompt, record.text("text"))
        yield Example(f"{stem}:{number}", text=text, prompt=prompt, group=config.group)


def _part(passages: Sequence[Example], config: PassagesConfig) -> list[Example]:
    """By rank of a hash of the text, so that each part has its share and no change of the options moves a passage."""
    if config.part == "all":
        return list(passages)
    order = sorted(passages, key=lambda e: records.share(_VERSION, e.prompt, e.text))
    count = min(max(round(config.held_out * len(order)), 1), len(order) - 1) if config.held_out else 0
    held_out = {example.id for example in order[:count]}
    return [e for e in passages if (e.id in held_out) == (config.part == "held-out")]


def _continued(example: Example) -> Example:
    """The second half of the words after the first; a text of one word after nothing."""
    spans = [match.span() for match in _WORD.finditer(example.text)]
    if example.prompt or len(spans) < 2:
        return example
    at = spans[len(spans) // 2][0]
    return Example(example.id, prompt=example.text[:at], text=example.text[at:], group=example.group)
