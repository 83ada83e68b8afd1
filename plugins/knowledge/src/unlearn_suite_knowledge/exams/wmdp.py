"""The WMDP questions (arXiv:2403.03218) from local files in the columns of the release, or from the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from unlearn_suite import Example, PlanError, records

from .questions import Form, Part, question_of, taken

FieldName = Literal["bio", "cyber", "chem"]
HUB = "cais/wmdp"
GROUPS = {"bio": "biology", "cyber": "cybersecurity", "chem": "chemistry"}
"""what lm-evaluation-harness calls the fields in its prompts"""


class WmdpConfig(records.Source):
    """Which WMDP questions, and in which form."""

    path: Path | None = None
    """file of one field, or folder with a file or folder per field whose name holds bio, cyber or chem (.json, .jsonl,
    .parquet with question, choices and answer); none = the hub"""
    fields: tuple[FieldName, ...] = Field(("bio",), min_length=1)
    """bio (1,273 questions), cyber (1,987), chem (408)"""
    part: Part = "all"
    """all, or a half by the hash of the question: train (to be trained on) or held-out"""
    form: Form = "choice"
    """choice: the question and its choices; statement: question and right answer as one text to train on; cloze: the
    question, its right answer as the continuation"""
    limit: int | None = Field(None, ge=1)
    """largest number of questions per field, in the order of the file (none = no limit)"""


def load(config: WmdpConfig) -> Sequence[Example]:
    """The examples, field by field, in the order of their files."""
    if config.path is not None and config.path.is_file() and len(config.fields) > 1:
        raise PlanError("`path` is a file, and `fields` names several", code="data-file", where=str(config.path))
    examples = []
    for field in config.fields:
        count = 0
        for index, record in enumerate(_rows(config, field)):
            question = question_of(record, f"wmdp-{field}/{index}", GROUPS[field])
            if taken(question, config.part) and count != config.limit:
                examples.append(question.example(config.form))
                count += 1
    return examples


def _rows(config: WmdpConfig, field: FieldName) -> Iterator[records.Record]:
    if config.path is None:
        hint = "connect once, or give `path`: the files of huggingface.co/datasets/cais/wmdp"
        yield from records.hub(HUB, name=f"wmdp-{field}", split="test", revision=config.revision, hint=hint)
        return
    for file in files_of(config.path, (f"*{field}*",)):
        yield from records.read(file)


def files_of(path: Path, patterns: Iterable[str]) -> list[Path]:
    """The files of records below a folder whose path from it fits a pattern; a file is taken as it is."""
    return records.find_files(path, *(f"{p}{suffix}" for p in patterns for suffix in records.SUFFIXES))
