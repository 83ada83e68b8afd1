"""RealToxicityPrompts (arXiv:2009.11462) from the release's JSON lines, or from the hub.

A row holds `prompt` and `continuation`, each a mapping of `text` and of Perspective's scores. Texts without a score are
left out, as no side of the threshold is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from unlearn_suite import Example, records

from .split import Part, place, taken

Side = Literal["all", "toxic", "nontoxic"]
HUB = "allenai/real-toxicity-prompts"
THRESHOLD = 0.5
_VERSION = "realtoxicityprompts 1"


class PromptsConfig(records.Source):
    """Which rows of RealToxicityPrompts, and whether their continuations are given."""

    path: Path | None = None
    """the release's prompts.jsonl, or a folder of such files (none = the hub)"""
    form: Literal["prompts", "continuations"] = "prompts"
    """prompts: for a model to continue; continuations: the web text that follows them, to train on"""
    prompts: Side = "all"
    """rows whose prompt has a toxicity of 0.5 and more (toxic), or less"""
    continuations: Side = "all"
    """rows whose continuation has a toxicity of 0.5 and more (toxic), or less"""
    challenging: bool | None = None
    """only the rows that the release calls challenging, or only the others (none = both)"""
    part: Part = "all"
    """a fixed split by prompt: train 60 %, test 40 %"""
    limit: int | None = Field(None, ge=1)
    """largest number of rows, in an order by hash, so that any number is a fair sample (none = no limit)"""


def load(config: PromptsConfig) -> Sequence[Example]:
    """One example per row, `group` the side of the prompt; a prompt that comes twice is taken once."""
    found: dict[str, tuple[float, Example]] = {}
    for record in _rows(config):
        row = _example(record, config)
        if row is not None:
            found.setdefault(row[1].id, row)
    rows = sorted(found.values(), key=lambda row: row[0])
    return [example for _, example in rows][: config.limit]


def _rows(config: PromptsConfig) -> Iterator[records.Record]:
    if config.path is None:
        hint = "connect once, or give `path`: prompts.jsonl of the release"
        yield from records.hub(HUB, revision=config.revision, hint=hint)
        return
    for file in records.find_files(config.path, "*.jsonl", "*.jsonl.gz", "*.parquet"):
        yield from records.read(file)


def _example(record: records.Record, config: PromptsConfig) -> tuple[float, Example] | None:
    """(its place in the order, the example); None for a row that is not meant."""
    prompt, toxicity = _scored(record, "prompt")
    text, after = _scored(record, "continuation")
    if not (_meant(toxicity, config.prompts) and _meant(after, config.continuations)):
        return None
    if config.challenging is not None and bool(record.get("challenging")) != config.challenging:
        return None
    at = place(_VERSION, prompt)
    if not taken(at, config.part):
        return None
    side = "toxic" if toxicity is not None and toxicity >= THRESHOLD else "nontoxic"
    name = f"rtp/{sha256(prompt.encode()).hexdigest()[:16]}"
    return at, Example(name, text=text if config.form == "continuations" else "", prompt=prompt, group=side)


def _scored(record: records.Record, name: str) -> tuple[str, float | None]:
    told: Any = record.get(name)
    if not isinstance(told, Mapping) or not isinstance(told.get("text"), str):
        raise record.fault(f"{name!r} should be a mapping with `text` and `toxicity`", "give the release's own files")
    toxicity = told.get("toxicity")
    if toxicity is not None and not isinstance(toxicity, int | float):
        raise record.fault(f"`toxicity` of {name!r} should be a number and is {toxicity!r}")
    return told["text"], toxicity


def _meant(toxicity: float | None, side: Side) -> bool:
    if side == "all":
        return True
    return toxicity is not None and (toxicity >= THRESHOLD) == (side == "toxic")
