"""Records of published data: local files as they were released, or the hub; and splits that never change.

For the datasets of plugins, which turn records into examples. Every record knows its place (file and line), and what
is wrong with it becomes one `PlanError` there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import model_validator

from ..errors import PlanError, SuiteError
from ..evaluate.examples import join
from ..specs import Config
from .files import lines_of, open_bytes

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


class Source(Config):
    """Where published data comes from; the options of a dataset begin with it."""

    path: Path | None = None
    """the release's file or folder (none = the hub)"""
    revision: str | None = None
    """commit on the hub (none = the newest; what is used is fingerprinted by content either way)"""

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if self.path is not None and self.revision is not None:
            raise ValueError("`revision` is for the hub, and `path` for files here: give one of them")
        return self


@dataclass(frozen=True)
class Record:
    """One record: its columns, and where it stands."""

    place: str
    """file and line (or row, or item) that errors name"""
    columns: Mapping[str, Any]
    """name -> value, as the file has it"""

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def get(self, name: str) -> Any:
        """The value of a column. Raises `PlanError` when there is no such column."""
        if name not in self.columns:
            found = ", ".join(map(str, self.columns)) or "none"
            raise self.fault(f"there is no column {name!r}; its columns are {found}", "is this the file of that name?")
        return self.columns[name]

    def text(self, name: str) -> str:
        """The text of a column, not blank. Raises `PlanError` for anything else."""
        value = self.get(name)
        if not isinstance(value, str) or not value.strip():
            kind = "empty" if value is None or value == "" or isinstance(value, str) else f"a {type(value).__name__}"
            raise self.fault(f"{name!r} should be text and is {kind}")
        return value

    def number(self, name: str) -> float:
        """The number of a column, also when it is written as text. Raises `PlanError` for anything else."""
        value = self.get(name)
        try:
            if isinstance(value, bool):
                raise ValueError
            return float(value)
        except (TypeError, ValueError) as error:
            raise self.fault(f"{name!r} should be a number and is {value!r}") from error

    def fault(self, message: str, hint: str = "correct the record") -> PlanError:
        """The error to raise for what is wrong with this record."""
        return PlanError(message, code="data", where=self.place, hint=hint)


def read(path: Path, *, names: Sequence[str] | None = None) -> Iterator[Record]:
    """The records of a local file: .jsonl, .json (a list, or one object a line), .csv, .tsv or .parquet; text may be
    packed (.gz).

    `names` are the columns of a table whose first line is a record already. Raises `PlanError`, for a file without any
    record too.
    """
    return _some(_records_of(path, names), str(path))


def _some(found: Iterator[Record], place: str) -> Iterator[Record]:
    """All that is found. Raises `PlanError` when that is nothing: a set that came empty is not to pass unseen."""
    first = next(found, None)
    if first is None:
        raise PlanError("there is no record in it", code="data", where=place, hint="fetch it again")
    yield first
    yield from found


def _records_of(path: Path, names: Sequence[str] | None) -> Iterator[Record]:
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in SUFFIXES:
        hint = f"known types: {', '.join(SUFFIXES)}"
        raise PlanError(f"{path.name!r} is of no known type", code="data-file", where=str(path), hint=hint)
    if suffix == ".csv":
        return _table(path, names)
    if suffix == ".tsv":
        return _tabbed(path, names)
    if suffix == ".parquet":
        return _parquet(path)
    if suffix == ".json" and (value := _whole(path)) is not None:
        return _listed(path, value)
    return _lines(path)


def lines(path: Path) -> Iterator[Record]:
    """The lines of a text file that are not blank, each as a record with `text`. Raises `PlanError`."""
    for number, line in lines_of(path):
        if line.strip():
            yield Record(f"{path}:{number}", {"text": line})


def read_text(path: Path) -> str:
    """The whole of a text file (packed if its name ends in .gz), with line ends as \\n. Raises `PlanError`."""
    return "\n".join(line for _, line in lines_of(path))


def read_json(path: Path) -> Any:
    """The value of a whole .json file. Raises `PlanError`."""
    value = _whole(path)
    if value is None:
        raise PlanError("it is no JSON", code="data", where=str(path), hint="fetch it again")
    return value


def find_files(folder: Path, *patterns: str) -> list[Path]:
    """Files below a folder whose path from it fits one of the patterns (fnmatch, in lower case), sorted; for a file
    the file itself. Raises `PlanError` when there is none."""
    if folder.is_file():
        return [folder]
    inside = {path: path.relative_to(folder).as_posix().lower() for path in folder.rglob("*") if path.is_file()}
    found = sorted(path for path, name in inside.items() if any(fnmatchcase(name, pattern) for pattern in patterns))
    if not found:
        hint = f"it should hold one of: {', '.join(patterns)}"
        raise PlanError("the folder lacks the files of the release", code="data-file", where=str(folder), hint=hint)
    return found


def continuing(prompt: str, text: str) -> str:
    """`text` as it goes on after `prompt`: behind a blank where neither brings white space, as metrics join the two."""
    return join(prompt, text, " ") if text else text


def hub(
    path: str, *, name: str | None = None, split: str = "train", revision: str | None = None, hint: str = ""
) -> Iterator[Record]:
    """The records of a dataset on the Hugging Face hub. `hint` is told when it cannot be had, in place of a general
    one: a gated set says how it is obtained. Raises `SuiteError`."""
    from .hub_dataset import HubConfig, records

    try:
        rows = records(HubConfig(path=path, name=name, split=split, revision=revision, limit=None))
        yield from _some((Record(place, columns) for _, place, columns in rows), f"hf:{path}[{split}]")
    except SuiteError as error:
        error.hint = hint if hint and error.code in ("no-network", "data-file", "hub-gated") else error.hint
        raise


def share(*words: str) -> float:
    """A number in [0, 1) fixed by the words: the place of a unit in a split by hash that never changes."""
    return int.from_bytes(sha256("\n".join(words).encode()).digest()[:8], "big") / 2**64


def chosen(value: Iterable[str] | None, known: Iterable[str], what: str, where: str = "") -> list[str]:
    """The asked names in the order of `known`; all of them for None. Raises `PlanError` for an unknown one."""
    names = list(known)
    asked = names if value is None else list(value)
    for name in asked:
        if name not in names:
            from ..plan.faults import suggest

            hint = suggest(name, names, all_of_them="there are")
            raise PlanError(f"there is no {what} {name!r} in it", code="data", where=where, hint=hint)
    return [name for name in names if name in asked]


def _lines(path: Path) -> Iterator[Record]:
    for number, line in lines_of(path):
        if line.strip():
            place = f"{path}:{number}"
            try:
                value = json.loads(line)
            except ValueError as error:
                hint = "each line must be one whole JSON object"
                raise PlanError(f"it is no JSON: {error}", code="data", where=place, hint=hint) from error
            yield _record(value, place)


def _record(value: Any, place: str) -> Record:
    """An object; a bare text (a line of a corpus) counts as its `text`."""
    if isinstance(value, str):
        return Record(place, {"text": value})
    if not isinstance(value, dict):
        raise PlanError(f"expected a JSON object, found a {type(value).__name__}", code="data", where=place)
    return Record(place, value)


def _whole(path: Path) -> Any:
    """The JSON value of a whole file; None when the file is no single value."""
    with open_bytes(path) as file:
        data = file.read()
    try:
        return json.loads(data.decode("utf-8-sig"))
    except ValueError:
        return None


def _listed(path: Path, value: Any) -> Iterator[Record]:
    items = value if isinstance(value, list) else [value]
    for index, item in enumerate(items):
        yield _record(item, f"{path} item {index}")


def _table(path: Path, names: Sequence[str] | None) -> Iterator[Record]:
    # csv wants the line ends inside quoted fields, which `lines_of` has taken off.
    reader = csv.reader(line + "\n" for _, line in lines_of(path))
    columns = list(names) if names is not None else None
    try:
        for row in reader:
            if columns is None:
                columns = row
            elif row:
                yield _row(path, reader.line_num, columns, row)
    except csv.Error as error:
        raise PlanError(f"it is no table: {error}", code="data", where=f"{path}:{reader.line_num}") from error


def _tabbed(path: Path, names: Sequence[str] | None) -> Iterator[Record]:
    """Line by line: a stray quotation mark must not swallow the records after it, as it does for csv. Quotation marks
    around a whole field are taken off; fields that are missing at the end are empty."""
    columns = list(names) if names is not None else None
    for number, line in lines_of(path):
        row = [_unquoted(field) for field in line.split("\t")]
        if columns is None:
            columns = row
        elif line.strip():
            yield _row(path, number, columns, row + [""] * (len(columns) - len(row)))


def _unquoted(field: str) -> str:
    whole = len(field) > 1 and field[0] == field[-1] == '"'
    return field[1:-1].replace('""', '"') if whole else field


def _row(path: Path, number: int, columns: Sequence[str], row: Sequence[str]) -> Record:
    place = f"{path}:{number}"
    if len(row) != len(columns):
        message = f"it has {len(row)} fields where there are {len(columns)} columns"
        raise PlanError(message, code="data", where=place, hint=f"the columns: {', '.join(columns)}")
    return Record(place, dict(zip(columns, row, strict=True)))


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            index = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    yield Record(f"{path} row {index}", row)
                    index += 1
    except (pyarrow.ArrowException, OSError) as error:
        told = str(error).splitlines()[0]
        raise PlanError(f"it is no Parquet file: {told}", code="data-file", where=str(path)) from error
