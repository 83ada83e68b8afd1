"""Tiny models, token batches and a stage's surroundings, for the engine's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearn_suite.engine.batch import Batch, Encoded, collate
from unlearn_suite.specs import Example
from unlearn_suite.testing.tiny import VOCAB_SIZE


class QuietServices:
    """Services that only remember what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def sample(self, prompts: Sequence[str], **_: Any) -> list[list[str]]:
        raise AssertionError("this test must not sample")

    def memo(self, name: str, key: Any, build: Callable[[], Any]) -> Any:
        return build()

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def services() -> QuietServices:
    return QuietServices()


def random_batch(lengths: Sequence[int], seed: int, prompt: int = 2) -> Batch:
    """Random tokens; the first `prompt` tokens of each row are its prompt."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i, n in enumerate(lengths):
        ids = torch.randint(4, VOCAB_SIZE, (n,), generator=generator).tolist()
        rows.append(Encoded(Example(f"{seed}-{i}", "x", unit=f"u{i}"), tuple(ids), prompt))
    return collate(rows, 0)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    return random_batch


SENTENCES = [
    "the cat sat on the mat",
    "a dog ran home",
    "rain fell on the hill all day",
    "we ate bread",
    "the old clock stopped at noon",
    "birds sing early",
    "she wrote a long letter",
    "ice melts in spring",
]


@pytest.fixture
def examples() -> dict[str, list[Example]]:
    """Two roles of eight short texts."""
    return {
        "forget": [Example(f"f{i}", text, unit=f"f{i}", group="one") for i, text in enumerate(SENTENCES)],
        "retain": [Example(f"r{i}", text[::-1], unit=f"r{i}") for i, text in enumerate(SENTENCES)],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
