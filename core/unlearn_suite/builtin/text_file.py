"""text: a local plain-text file, cut into examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import Field

from ..specs import Config, Example
from .files import file_hash, lines_of, stem_of


class TextConfig(Config):
    """A plain-text file, and how it is cut."""

    path: Path
    """the file (.txt, or packed .txt.gz), from the plan's own folder"""
    cut: Literal["paragraphs", "lines", "document"] = "paragraphs"
    """`paragraphs`: at empty lines, line breaks inside become spaces; `lines`: one example per line that is
    not empty; `document`: the whole file as it is"""
    min_length: int = Field(1, ge=1)
    """characters below which a piece is left out"""
    limit: int | None = Field(None, ge=1)
    """largest number of examples, from the top (none = no limit)"""
    group: str = ""
    """what results are grouped by"""


def load(config: TextConfig) -> Sequence[Example]:
    """One example per piece, named after the file and the line where it begins."""
    stem = stem_of(config.path)
    pieces = (piece for piece in _pieces(config) if len(piece[1]) >= config.min_length)
    return [
        Example(id=f"{stem}:{number}", text=text, group=config.group) for number, text in islice(pieces, config.limit)
    ]


def fingerprint(config: TextConfig) -> str:
    """A hash of the file and of the options; the folder the file lies in does not count."""
    options = config.model_dump_json(exclude={"path"})
    return sha256(f"text 1\n{stem_of(config.path)}\n{options}\n{file_hash(config.path)}".encode()).hexdigest()


def _pieces(config: TextConfig) -> Iterator[tuple[int, str]]:
    lines = lines_of(config.path)
    if config.cut == "lines":
        return ((number, line.strip()) for number, line in lines if line.strip())
    if config.cut == "document":
        return iter([(1, "\n".join(line for _, line in lines))])
    return _paragraphs(lines)


def _paragraphs(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    start, words = 0, list[str]()
    for number, line in lines:
        if line.strip():
            start = start if words else number
            words += line.split()
        elif words:
            yield start, " ".join(words)
            words = []
    if words:
        yield start, " ".join(words)
