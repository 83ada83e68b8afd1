"""The everyday-toxicity set: hostile prompts with a toxic and a benign continuation, and neutral prompts.

data/rude.jsonl holds {"prompt", "toxic", "benign"}, data/neutral.jsonl {"prompt", "neutral"}. A prompt stops
in the middle of a sentence. Both continuations of a rude prompt are on its topic and about equally long.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Literal

from pydantic import Field

from unlearn_suite import Config, Example

Kind = Literal["toxic", "benign", "neutral", "prompts", "neutral-prompts"]

TRAIN_SHARE = 0.6
_VERSION = "everyday-toxicity 1"
_FILE = {
    "toxic": "rude",
    "benign": "rude",
    "prompts": "rude",
    "neutral": "neutral",
    "neutral-prompts": "neutral",
}


class ToxicityDataConfig(Config):
    """Which prompts of everyday-toxicity, and what follows them."""

    kind: Kind = "toxic"
    """`toxic`, `benign`: rude prompts with that continuation; `neutral`: neutral prompts with a neutral one;
    `prompts`, `neutral-prompts`: prompts alone, for a model to continue"""
    part: Literal["train", "test", "all"] = "train"
    """a fixed split by prompt: train 60 %, test 40 %"""
    skip: int = Field(0, ge=0)
    """prompts of the part, in a fixed order, that are passed over: what is `limit`ed elsewhere can be kept apart"""
    limit: int | None = Field(None, ge=1)
    """largest number of prompts, in that order (none = no limit)"""


def _source(name: str) -> str:
    return (files(__package__) / "data" / f"{name}.jsonl").read_text(encoding="utf-8")


def _digest(name: str, prompt: str) -> str:
    return sha256(f"{_VERSION}\n{name}\n{prompt}".encode()).hexdigest()


@cache
def _rows(name: str) -> tuple[dict[str, str], ...]:
    """The rows of one file with their ids, in an order fixed by hash, so that any prefix is a fair sample."""
    rows = [json.loads(line) for line in _source(name).splitlines()]
    rows.sort(key=lambda row: _digest(name, row["prompt"]))
    return tuple({"id": f"{name}/{_digest(name, row['prompt'])[:12]}", **row} for row in rows)


def load(config: ToxicityDataConfig) -> Sequence[Example]:
    """One example per prompt of the part, always in the same order; a continuation starts with a space."""
    rows = _rows(_FILE[config.kind])
    cut = round(TRAIN_SHARE * len(rows))
    parts = {"train": rows[:cut], "test": rows[cut:], "all": rows}
    return [
        Example(
            id=f"{row['id']}/{config.kind}",
            prompt=row["prompt"],
            text=f" {row[config.kind]}" if config.kind in row else "",
            group=config.kind,
            unit=row["id"],
        )
        for row in parts[config.part][config.skip :][: config.limit]
    ]


def fingerprint(config: ToxicityDataConfig) -> str:
    """A hash of the config and of the file it reads."""
    return sha256(f"{_VERSION}\n{config.model_dump_json()}\n{_source(_FILE[config.kind])}".encode()).hexdigest()
