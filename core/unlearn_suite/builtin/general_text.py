"""general-text: short paragraphs of plain English, to keep a model's language and to measure it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Literal

from pydantic import Field

from ..specs import Config, DatasetSpec, Example

TRAIN_SHARE = 0.7
_VERSION = "general-text 1"


class GeneralTextConfig(Config):
    """Which paragraphs of general-text."""

    part: Literal["train", "test", "all"] = "train"
    """a fixed split by paragraph: train 70 %, test 30 %"""
    limit: int | None = Field(None, ge=1)
    """largest number of paragraphs, in a fixed order (none = no limit)"""


def spec() -> DatasetSpec:
    """The dataset as the host registers it."""
    return DatasetSpec(
        name="general-text",
        summary="Plain English paragraphs: daily life, how-to, letters, stories, weather, work, simple science",
        load=f"{__name__}:load",
        fingerprint=f"{__name__}:fingerprint",
        config=GeneralTextConfig,
        licence="Apache-2.0",
        source="written for this project",
        size="126 paragraphs",
    )


def _source() -> str:
    return (files(__package__) / "data" / "general.txt").read_text(encoding="utf-8")


def paragraphs() -> list[str]:
    """All paragraphs, in an order fixed by hash, each on one line."""
    found = [" ".join(block.split()) for block in _source().split("\n\n")]
    return sorted((text for text in found if text), key=_digest)


def _digest(text: str) -> str:
    return sha256(f"{_VERSION}\n{text}".encode()).hexdigest()


def load(config: GeneralTextConfig) -> Sequence[Example]:
    """One example per paragraph of the part, always in the same order."""
    texts = paragraphs()
    cut = round(TRAIN_SHARE * len(texts))
    parts = {"train": texts[:cut], "test": texts[cut:], "all": texts}
    chosen = parts[config.part][: config.limit]
    return [Example(id=f"general/{_digest(text)[:12]}", text=text, group="general") for text in chosen]


def fingerprint(config: GeneralTextConfig) -> str:
    """A hash of the config and of the text file."""
    return sha256(f"{_VERSION}\n{config.model_dump_json()}\n{_source()}".encode()).hexdigest()
