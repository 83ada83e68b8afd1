"""jsonl: a local file with one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from pydantic import Field

from ..errors import PlanError
from ..specs import Config, Example
from .columns import Columns, Record, Where, examples_of
from .files import file_hash, lines_of, stem_of


class JsonlConfig(Config):
    """A file of JSON lines, and what its columns mean."""

    path: Path
    """the file (.jsonl, or packed .jsonl.gz), from the plan's own folder"""
    columns: Columns = Columns()
    """which column is what"""
    where: Where = Field(default_factory=dict)
    """records to take: column -> the value it must have, or a list of such values"""
    limit: int | None = Field(None, ge=1)
    """largest number of examples, from the top (none = no limit)"""


def load(config: JsonlConfig) -> Sequence[Example]:
    """One example per record that `where` takes, in the order of the file."""
    return examples_of(_records(config.path), config.columns, config.where, config.limit, stem_of(config.path))


def fingerprint(config: JsonlConfig) -> str:
    """A hash of the file and of the options; the folder the file lies in does not count."""
    options = config.model_dump_json(exclude={"path"})
    return sha256(f"jsonl 1\n{stem_of(config.path)}\n{options}\n{file_hash(config.path)}".encode()).hexdigest()


def _records(path: Path) -> Iterator[tuple[int, str, Record]]:
    for number, line in lines_of(path):
        if line.strip():
            yield number, f"{path}:{number}", _record(line, f"{path}:{number}")


def _record(line: str, place: str) -> Record:
    try:
        record = json.loads(line)
    except ValueError as error:
        hint = "each line must be one whole JSON object"
        if line.lstrip().startswith("["):
            hint = "this looks like one JSON array: write one object per line"
        raise PlanError(f"it is no JSON: {error}", code="data", where=place, hint=hint) from error
    if not isinstance(record, dict):
        message = f"expected a JSON object, found {type(record).__name__}"
        raise PlanError(message, code="data", where=place, hint='write {"text": ...} on each line')
    return record
