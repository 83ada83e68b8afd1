"""MMLU (arXiv:2009.03300) from the release's folder of CSV files, from Parquet files of the hub, or from the hub.

A CSV file of the release, dev/virology_dev.csv, has no header and answers A to D. Files with a header and answers that
count from 0 are taken as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from unlearn_suite import Example, PlanError, records

from .questions import Form, Part, Question, answer_of, question_of, taken
from .subjects import SUBJECTS, Subject, neighbours

Split = Literal["dev", "val", "test"]
SPLITS: tuple[Split, ...] = ("dev", "val", "test")
HUB = "cais/mmlu"
_HUB_SPLIT = {"dev": "dev", "val": "validation", "test": "test"}
_COLUMNS = ("question", "0", "1", "2", "3", "answer")


class MmluConfig(records.Source):
    """Which questions of MMLU, and in which form."""

    path: Path | None = None
    """the release's folder with dev, val and test (none = the hub); a part of the subjects is enough"""
    subjects: tuple[Subject, ...] | None = Field(None, min_length=1)
    """subjects to take (none = all that are there)"""
    near: Subject | None = None
    """leave this subject out, and without `subjects` take those of the same field"""
    splits: tuple[Split, ...] = Field(("test",), min_length=1)
    """files to read: dev (5 questions a subject, meant as examples), val, test"""
    part: Part = "all"
    """all, or a half by the hash of the question: train (to be trained on) or held-out"""
    form: Form = "choice"
    """choice: the question and its choices; statement: question and right answer as one text to train on; cloze: the
    question, its right answer as the continuation"""
    limit: int | None = Field(None, ge=1)
    """largest number of questions per subject, in the order of the files (none = no limit)"""

    @model_validator(mode="after")
    def _something_is_left(self) -> MmluConfig:
        if self.near is not None and self.subjects is not None and not set(self.subjects) - {self.near}:
            raise ValueError(f"`near` takes {self.near} out of `subjects`, and nothing is left")
        return self


def load(config: MmluConfig) -> Sequence[Example]:
    """The examples, subject by subject, each in the order of its files."""
    questions = _local(config, config.path) if config.path is not None else _from_hub(config)
    counts: dict[str, int] = {}
    examples = []
    for question in questions:
        if not taken(question, config.part) or counts.get(question.group, 0) == config.limit:
            continue
        counts[question.group] = counts.get(question.group, 0) + 1
        examples.append(question.example(config.form))
    return examples


def _local(config: MmluConfig, folder: Path) -> Iterator[Question]:
    found = [(split, _files(folder, split)) for split in config.splits]
    known = {subject for _, files in found for subject in files}
    if not known:
        hint = "it should hold test/virology_test.csv and so on; the release is data.tar at github.com/hendrycks/test"
        raise PlanError("the folder has no files of MMLU", code="data-file", where=str(folder), hint=hint)
    for subject in _subjects(config, [name for name in SUBJECTS if name in known], str(folder)):
        for split, files in found:
            yield from _read(files[subject], subject, split) if subject in files else ()


def _files(folder: Path, split: Split) -> dict[str, Path]:
    """{subject: file} of a split: <split>/<subject>_<split>.csv, or <subject>/<split>-*.parquet as on the hub."""
    found = {path.stem.removesuffix(f"_{split}"): path for path in sorted(folder.glob(f"{split}/*_{split}.csv"))}
    for path in sorted(folder.glob(f"*/{_HUB_SPLIT[split]}-*.parquet")):
        found.setdefault(path.parent.name, path)
    return {subject: path for subject, path in found.items() if subject in SUBJECTS}


def _subjects(config: MmluConfig, known: Sequence[str], where: str) -> list[str]:
    wanted: Iterable[str] | None = config.subjects
    if wanted is None and config.near is not None:
        beside = neighbours(config.near)
        wanted = [name for name in known if name in beside]
    chosen = [name for name in records.chosen(wanted, known, "subject", where) if name != config.near]
    if not chosen:
        hint = f"give `subjects`; there are: {', '.join(known)}"
        raise PlanError(f"no subject of the field of {config.near} is there", code="data", where=where, hint=hint)
    return chosen


def _read(path: Path, subject: str, split: str) -> Iterator[Question]:
    csv = path.suffix == ".csv"
    # A first line with a header is no question; names are given so that files without one are read alike.
    lines = records.read(path, names=_COLUMNS) if csv else records.read(path)
    index = 0
    for number, record in enumerate(lines):
        if csv and number == 0 and record.columns["answer"].strip().lower() == "answer":
            continue
        identity = f"{subject}/{split}/{index}"
        yield _csv_question(record, identity, subject) if csv else question_of(record, identity, subject)
        index += 1
    if not index:
        raise PlanError("there is no question in it", code="data", where=str(path), hint="fetch it again")


def _csv_question(record: records.Record, identity: str, subject: str) -> Question:
    choices = tuple(record.text(name) for name in _COLUMNS[1:5])
    answer = answer_of(record, record.columns["answer"], 4)
    return Question(identity, record.text("question"), choices, answer, subject)


def _from_hub(config: MmluConfig) -> Iterator[Question]:
    hint = "connect once, or give `path`: the folder of the release (github.com/hendrycks/test)"
    for subject in _subjects(config, SUBJECTS, f"hf:{HUB}"):
        for split in config.splits:
            rows = records.hub(HUB, name=subject, split=_HUB_SPLIT[split], revision=config.revision, hint=hint)
            for index, record in enumerate(rows):
                yield question_of(record, f"{subject}/{split}/{index}", subject)
