"""The general datasets: records to examples, files that are no good, fingerprints."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from unlearn_suite.builtin import hub_dataset, jsonl, text_file
from unlearn_suite.builtin.hub_dataset import HubConfig
from unlearn_suite.builtin.jsonl import JsonlConfig
from unlearn_suite.builtin.text_file import TextConfig
from unlearn_suite.errors import PREREQUISITE, USAGE, PlanError, PrerequisiteError
from unlearn_suite.specs import Example

ROWS: list[dict[str, Any]] = [
    {"text": "a sentence", "group": "g", "id": "own"},
    {"prompt": "2 + 2 =", "choices": ["3", "4"], "answer": 1},
    {"prompt": "only a prompt", "text": None},
]


def write(path: Path, rows: Sequence[Any]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def load(path: Path, **options: Any) -> list[Example]:
    return list(jsonl.load(JsonlConfig(path=path, **options)))


def wrong(path: Path, **options: Any) -> PlanError:
    with pytest.raises(PlanError) as caught:
        load(path, **options)
    assert caught.value.exit_code == USAGE
    return caught.value


@pytest.mark.parametrize("name", ["some.jsonl", "some.jsonl.gz"])
def test_columns_by_their_own_names(tmp_path: Path, name: str) -> None:
    assert load(write(tmp_path / name, ROWS)) == [
        Example(id="own", text="a sentence", group="g"),
        Example(id="some:2", text=" 4", prompt="2 + 2 =", choices=("3", "4"), answer=1),
        Example(id="some:3", prompt="only a prompt"),
    ]


def test_columns_that_are_named(tmp_path: Path) -> None:
    row = {"q": "Why?", "opts": {"text": ["x", "y"], "label": ["P", "Q"]}, "key": "Q", "topic": 7, "doc": "d1"}
    columns = {
        "prompt": "Question: {q}\nAnswer:",
        "choices": "opts.text",
        "labels": "opts.label",
        "answer": "key",
        "group": "topic",
        "unit": "doc",
        "id": "{nothing}",
    }
    path = write(tmp_path / "a.jsonl", [row])
    assert "no column '{nothing}'" in wrong(path, columns=columns).message
    del columns["id"]
    (example,) = load(path, columns=columns)
    assert example.prompt == "Question: Why?\nAnswer:"
    assert (example.choices, example.answer, example.text) == (("x", "y"), 1, " y")
    assert (example.group, example.unit, example.id) == ("7", "d1", "a:1")


def test_one_column_for_each_choice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "A": "one", "B": "two", "answer": "b"}])
    (example,) = load(path, columns={"choices": ["A", "B"]})
    assert (example.choices, example.answer) == (("one", "two"), 1)


@pytest.mark.parametrize(
    ("answer", "index"),
    [(0, 0), (2, 2), ("C", 2), ("c", 2), (" b ", 1), ("1", 1), (1.0, 1), ("green", 1)],
)
def test_answers_in_every_spelling(tmp_path: Path, answer: Any, index: int) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "choices": ["red", "green", "blue"], "answer": answer}])
    assert load(path)[0].answer == index


@pytest.mark.parametrize("answer", [3, -1, "D", "purple", 1.5, True, ""])
def test_answers_that_are_none_of_the_choices(tmp_path: Path, answer: Any) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "choices": ["red", "green", "blue"], "answer": answer}])
    error = wrong(path)
    assert error.where == f"{path}:1"
    assert "none of the 3 choices" in error.message


def test_where_and_limit(tmp_path: Path) -> None:
    rows = [{"text": str(n), "kind": "even" if n % 2 == 0 else "odd", "n": n, "flag": n == 1} for n in range(9)]
    path = write(tmp_path / "a.jsonl", rows)
    assert [e.text for e in load(path, where={"kind": "odd"}, limit=2)] == ["1", "3"]
    assert [e.id for e in load(path, where={"n": [1, 4, 77]})] == ["a:2", "a:5"]
    assert [e.text for e in load(path, where={"flag": True})] == ["1"]
    assert load(path, where={"n": "1"}) == []  # a text is no number
    assert load(path, where={"n": True}) == []  # and true is not 1
    error = wrong(path, where={"knid": "odd"})
    assert "there is no column 'knid'; its columns are text, kind, n, flag" in error.message


def test_empty_records_are_left_out_and_lines_still_count(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"text": "one"}\n\n{"text": "  "}\r\n{"text": "four"}\r\n', encoding="utf-8")
    assert [(e.id, e.text) for e in load(path)] == [("a:1", "one"), ("a:4", "four")]


@pytest.mark.parametrize(
    ("content", "line", "message", "hint"),
    [
        (b'{"text": "x"}\n{"text": \n', 2, "it is no JSON", "one whole JSON object"),
        (b'[{"text": "x"},\n', 1, "it is no JSON", "one object per line"),
        (b'{"text": "x"}\n["x"]\n', 2, "expected a JSON object, found list", "text"),
        (b'{"text": "x"}\n\n{"txt": "x"}\n', 3, "gives no text: its columns are txt", "columns"),
        (b'{"text": ["x"]}\n', 1, "`text` is no text but a list", "another column"),
        (b'{"text": "x", "choices": "abc"}\n', 1, "`choices` is no list but a str", "list of texts"),
        (b'{"text": "x"}\n{"text": "\xff"}\n', 2, "it is no UTF-8 text (byte 0xff)", "UTF-8"),
        (b'{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', 2, "its id 'a' is that of", "its own id"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, line: int, message: str, hint: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    error = wrong(path)
    assert error.where == f"{path}:{line}"
    assert message in error.message
    assert hint in error.hint


def test_an_answer_without_choices(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"question": "q", "answer": "an answer"}])
    assert load(path, columns={"prompt": "question", "text": "answer"})[0].text == " an answer"
    assert "an answer and no choices" in wrong(path, columns={"prompt": "question", "answer": "answer"}).message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in wrong(tmp_path / "none.jsonl").message
    assert "a folder" in wrong(tmp_path).message
    packed = write(tmp_path / "a.jsonl.gz", ROWS[1:] * 50)
    packed.write_bytes(packed.read_bytes()[:-20])
    assert "damaged or cut off" in wrong(packed).hint
    packed.write_bytes(b"no gzip at all")
    assert wrong(packed).where == f"{packed}:1"
    with pytest.raises(PlanError):
        jsonl.fingerprint(JsonlConfig(path=tmp_path / "none.jsonl"))
    with pytest.raises(PlanError):
        text_file.fingerprint(TextConfig(path=tmp_path))


def test_the_fingerprint_knows_content_and_options_but_not_the_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    first, second = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b" / "a.jsonl", ROWS)
    plain = jsonl.fingerprint(JsonlConfig(path=first))
    assert jsonl.fingerprint(JsonlConfig(path=second)) == plain
    assert jsonl.fingerprint(JsonlConfig(path=first, limit=1)) != plain
    write(second, ROWS[:2])
    assert jsonl.fingerprint(JsonlConfig(path=second)) != plain


TEXT = "\nFirst paragraph,\n  on two lines.\n\n\nSecond.\n   \nThird one."


def test_text_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(TEXT)

    def pieces(**options: Any) -> list[tuple[str, str]]:
        return [(e.id, e.text) for e in text_file.load(TextConfig(path=path, **options))]

    paragraphs = [("book:2", "First paragraph, on two lines."), ("book:6", "Second."), ("book:8", "Third one.")]
    assert pieces() == paragraphs
    assert pieces(min_length=8) == [paragraphs[0], paragraphs[2]]
    assert pieces(limit=1) == paragraphs[:1]
    lines = [("book:2", "First paragraph,"), ("book:3", "on two lines."), *paragraphs[1:]]
    assert pieces(cut="lines") == lines
    assert pieces(cut="document") == [("book:1", TEXT)]
    assert text_file.load(TextConfig(path=path, group="g"))[0].group == "g"
    assert text_file.fingerprint(TextConfig(path=path)) != text_file.fingerprint(TextConfig(path=path, cut="lines"))


@pytest.fixture()
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The `datasets` library, offline, with a cache of its own."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


def test_hf_reads_local_files(hub: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "some.jsonl", [{"q": str(n), "kind": n % 2} for n in range(6)])
    config = HubConfig(files=(path,), columns={"prompt": "{q} = "}, where={"kind": 1}, limit=2)
    assert [(e.id, e.prompt) for e in hub_dataset.load(config)] == [("some:1", "1 = "), ("some:3", "3 = ")]
    (tmp_path / "t.tsv").write_text("text\tgroup\none\ta\ntwo\tb\n")
    examples = hub_dataset.load(HubConfig(files=(tmp_path / "t.tsv",), split="train[1:]"))
    assert examples == [Example(id="t:0", text="two", group="b")]


def test_hf_reads_folders(hub: Any, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", [{"text": "t"}])
    write(folder / "test.jsonl", [{"text": "u"}])
    assert hub_dataset.load(HubConfig(folder=folder, split="test")) == [Example(id="set:0", text="u")]
    saved = hub.DatasetDict({"train": hub.Dataset.from_dict({"text": ["s"]})})
    saved.save_to_disk(tmp_path / "saved")
    saved["train"].save_to_disk(tmp_path / "one")
    assert hub_dataset.load(HubConfig(folder=tmp_path / "saved")) == [Example(id="saved:0", text="s")]
    assert hub_dataset.load(HubConfig(folder=tmp_path / "one")) == [Example(id="one:0", text="s")]
    with pytest.raises(PlanError) as caught:
        hub_dataset.load(HubConfig(folder=tmp_path / "saved", split="test"))
    assert caught.value.hint == "its splits: train"


def test_hf_names_the_row_that_is_wrong(hub: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": "x", "choices": ["a"], "answer": 0}, {"choices": ["a"], "answer": 5}])
    with pytest.raises(PlanError) as caught:
        hub_dataset.load(HubConfig(files=(path,)))
    assert caught.value.where == f"{path}[train] row 1"


def test_hf_failures_are_one_clear_error(hub: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": "x"}])
    (tmp_path / "bad.csv").write_text('a,b\n1,2\n1,2,3,4\n"')
    for options, code in [
        ({"files": (path,), "split": "nope"}, USAGE),
        ({"files": (tmp_path / "none.jsonl",)}, USAGE),
        ({"files": (tmp_path / "bad.csv",)}, USAGE),
        ({"path": "owner/name"}, PREREQUISITE),
    ]:
        with pytest.raises((PlanError, PrerequisiteError)) as caught:
            hub_dataset.load(HubConfig(**options))
        assert caught.value.exit_code == code, caught.value
        assert caught.value.hint and "\n" not in caught.value.message


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"path": "a/b", "folder": "c"},
        {"folder": "c", "revision": "0" * 40},
        {"files": ["a.csv", "b.json"]},
        {"files": ["a.exe"]},
    ],
)
def test_hf_options_that_contradict(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HubConfig(**options)


def test_hf_fingerprints(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = write(tmp_path / "a.jsonl", ROWS[:1]), write(tmp_path / "b.jsonl", [{"text": "another"}])
    of_first = hub_dataset.fingerprint(HubConfig(files=(first,)))
    assert hub_dataset.fingerprint(HubConfig(files=(first,))) == of_first
    assert hub_dataset.fingerprint(HubConfig(files=(second,))) != of_first
    monkeypatch.setitem(sys.modules, "datasets", None)  # a pinned one is not even opened
    pinned = [hub_dataset.fingerprint(HubConfig(path="a/b", revision=digit * 40)) for digit in "012"]
    assert len(set(pinned)) == 3


def test_hf_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PrerequisiteError) as caught:
        hub_dataset.load(HubConfig(path="a/b"))
    assert caught.value.hint == 'pip install "unlearn-suite[hub]"'
