"""A record of columns -> an `Example`: which column is what, and which records are taken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import PlanError
from ..specs import Config, Example
from .records import continuing

Record = Mapping[str, Any]
Scalar = str | int | float | bool | None
_SLOT = re.compile(r"\{([^{}]+)\}")
_BY_NAME = ("text", "prompt", "choices", "answer", "group", "id")


class Columns(Config):
    """Which column is what. A column is named, reached into ("choices.text"), or, for `text` and `prompt`,
    put into a template ("Question: {question}\\nAnswer:"). Without a name, the column that is called like
    the field is taken where there is one."""

    text: str | None = None
    """what is trained on or scored (none = column `text`, else the right choice); after a prompt it begins with a
    blank, unless one of them brings white space"""
    prompt: str | None = None
    """context that is given (none = column `prompt`)"""
    choices: str | tuple[str, ...] | None = None
    """column with the list of possible answers, or one column for each (none = column `choices`)"""
    labels: str | None = None
    """list of the choices' labels, when `answer` is one of those"""
    answer: str | None = None
    """the right choice: its index from 0, its letter, its label or its text (none = column `answer`)"""
    group: str | None = None
    """what results are grouped by (none = column `group`)"""
    unit: str | None = None
    """what splits and resampling keep together (none = the example itself)"""
    id: str | None = None
    """name of the example (none = column `id`, else file and line)"""


Where = Mapping[str, Scalar | tuple[Scalar, ...]]


class DataFault(Exception):
    """What is wrong with one record, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def examples_of(
    records: Iterable[tuple[int, str, Record]], columns: Columns, where: Where, limit: int | None, stem: str
) -> list[Example]:
    """Examples of (number, place, record) triples: those that `where` takes, up to `limit` of them.

    Records whose texts are empty (the empty lines of a corpus) are left out.
    Raises `PlanError` that names the place of the first record that cannot be used.
    """
    examples: list[Example] = []
    seen: dict[str, str] = {}
    for number, place, record in records:
        if limit is not None and len(examples) == limit:
            break
        try:
            if not taken(record, where):
                continue
            example = example_of(record, columns, f"{stem}:{number}")
            if example is None:
                continue
            if example.id in seen:
                raise DataFault(f"its id {example.id!r} is that of {seen[example.id]} too", "give each its own id")
        except DataFault as fault:
            raise PlanError(fault.message, code="data", where=place, hint=fault.hint) from fault
        seen[example.id] = place
        examples.append(example)
    return examples


def taken(record: Record, where: Where) -> bool:
    """Whether every column named in `where` has the value, or one of the values, given there."""
    for name, wanted in where.items():
        value = _column(record, name, "where")
        if not any(_same(value, one) for one in (wanted if isinstance(wanted, tuple) else (wanted,))):
            return False
    return True


def _same(value: Any, wanted: Scalar) -> bool:
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def example_of(record: Record, columns: Columns, default_id: str) -> Example | None:
    """The example of one record, None when all its texts are empty. Raises `DataFault`."""
    values = dict(_values(record, columns))
    choices = _choices(values.get("choices"))
    answer = None
    if values.get("answer") is not None and (choices or columns.answer):
        answer = _answer(values["answer"], choices, values.get("labels"))
    text = _text(values.get("text"), "text")
    if not text and answer is not None:
        text = choices[answer]
    prompt = _text(values.get("prompt"), "prompt")
    if not {"text", "prompt", "choices"} & set(values):
        hint = "say which column is what, as in columns: {text: NAME}"
        raise DataFault(f"it gives no text: its columns are {', '.join(map(str, record)) or 'none'}", hint)
    if not (text.strip() or prompt.strip() or choices):
        return None
    return Example(
        id=_text(values.get("id"), "id") or default_id,
        text=continuing(prompt, text),
        prompt=prompt,
        choices=choices,
        answer=answer,
        group=_text(values.get("group"), "group"),
        unit=_text(values.get("unit"), "unit"),
    )


def _values(record: Record, columns: Columns) -> Iterator[tuple[str, Any]]:
    for field in type(columns).model_fields:
        named: str | tuple[str, ...] | None = getattr(columns, field)
        if named is None:
            if field in _BY_NAME and field in record:
                yield field, record[field]
        elif isinstance(named, tuple):
            yield field, [_column(record, name, field) for name in named]
        elif field in ("text", "prompt") and _SLOT.search(named) and named not in record:
            yield field, _filled(named, record, field)
        else:
            yield field, _column(record, named, field)


def _filled(template: str, record: Record, field: str) -> str:
    def value(slot: re.Match[str]) -> str:
        return _text(_column(record, slot[1], field), field)

    return _SLOT.sub(value, template)


def _column(record: Record, name: str, field: str) -> Any:
    """The value of a column; "a.b" reaches into a column that is a mapping."""
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            found = ", ".join(map(str, record)) or "none"
            raise DataFault(f"there is no column {name!r}; its columns are {found}", f"correct `{field}`")
        value = value[part]
    return value


def _text(value: Any, field: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value)
    raise DataFault(f"`{field}` is no text but {_kind(value)}", f"name another column for `{field}`")


def _choices(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise DataFault(f"`choices` is no list but {_kind(value)}", "name a column that holds a list of texts")
    return tuple(_text(choice, "choices") for choice in value)


def _answer(value: Any, choices: tuple[str, ...], labels: Any) -> int:
    if not choices:
        raise DataFault("it has an answer and no choices", "name the column of the choices, or take `answer` as `text`")
    if labels is not None:
        names = [_text(label, "labels") for label in labels]
        if names.count(str(value)) != 1:
            raise DataFault(f"the answer {value!r} is not one of the labels {names}", "correct `answer` or `labels`")
        index = names.index(str(value))
    else:
        index = _index(value, choices)
    if not 0 <= index < len(choices):
        hint = "count from 0, or give the letter"
        raise DataFault(f"the answer {value!r} is none of the {len(choices)} choices", hint)
    return index


def _index(value: Any, choices: tuple[str, ...]) -> int:
    if isinstance(value, str):
        word = value.strip()
        if choices.count(value) == 1:
            return choices.index(value)
        if len(word) == 1 and word.isascii() and word.isalpha():
            return ord(word.upper()) - ord("A")
        if word.isdecimal():
            return int(word)
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return int(value)
    return -1


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
