"""Records of published data: every file type gives the same records, and every fault has its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from unlearn_suite import PlanError, records
from unlearn_suite.plugins import load_catalog

ROWS = [{"q": "one, or\n two?", "a": "é"}, {"q": 'a "b"', "a": "c"}]


def write(folder: Path, name: str) -> Path:
    path = folder / name
    lines = "\n".join(json.dumps(row) for row in ROWS)
    if name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif name == "list.json":
        path.write_text(json.dumps(ROWS), encoding="utf-8")
    elif name.endswith(".csv"):
        path.write_text('q,a\n"one, or\n two?",é\n"a ""b""",c\n', encoding="utf-8")
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines + "\n\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "lines.json", "list.json", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_types(tmp_path: Path, name: str) -> None:
    assert [dict(r.columns) for r in records.read(write(tmp_path, name))] == ROWS


def test_tables_without_a_header_and_tabs(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('x\ty\n\n"a ""b"""\n"stray\tz\n', encoding="utf-8")
    first, short, stray = records.read(path, names=("one", "two"))
    assert first.columns == {"one": "x", "two": "y"}
    assert first.place == f"{path}:1"
    assert short.columns == {"one": 'a "b"', "two": ""}
    assert stray.columns == {"one": '"stray', "two": "z"}


def test_a_line_that_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('"just text"\n', encoding="utf-8")
    assert [r.text("text") for r in records.read(path)] == ["just text"]


@pytest.mark.parametrize(
    ("name", "content", "message", "place"),
    [
        ("a.jsonl", '{"a": 1}\n{"a"', "it is no JSON", ":2"),
        ("a.jsonl", "[1]\n", "expected a JSON object, found a list", ":1"),
        ("a.csv", "a,b\n1,2\n1\n", "it has 1 fields where there are 2 columns", ":3"),
        ("a.parquet", "nothing", "it is no Parquet file", ""),
        ("a.doc", "", "'a.doc' is of no known type", ""),
    ],
)
def test_faults(tmp_path: Path, name: str, content: str, message: str, place: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PlanError) as caught:
        list(records.read(path))
    assert caught.value.message.startswith(message)
    assert caught.value.where == f"{path}{place}"


def test_columns_of_a_record() -> None:
    record = records.Record("f:1", {"a": " ", "b": "x", "n": "2.5", "l": [1], "t": True})
    assert record.text("b") == "x" and record.number("n") == 2.5 and "b" in record
    for call, message in (
        (lambda: record.text("z"), "there is no column 'z'"),
        (lambda: record.text("a"), "'a' should be text and is empty"),
        (lambda: record.text("l"), "'l' should be text and is a list"),
        (lambda: record.number("b"), "'b' should be a number and is 'x'"),
        (lambda: record.number("t"), "'t' should be a number"),
    ):
        with pytest.raises(PlanError) as caught:
            call()
        assert caught.value.message.startswith(message) and caught.value.where == "f:1"


def test_finding_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("in/B.csv", "a.csv", "c.txt"):
        (tmp_path / name).write_text("", encoding="utf-8")
    assert [p.name for p in records.find_files(tmp_path, "*.csv")] == ["a.csv", "B.csv"]
    assert records.find_files(tmp_path / "a.csv", "*.json") == [tmp_path / "a.csv"]
    with pytest.raises(PlanError, match="lacks the files"):
        records.find_files(tmp_path, "*.json")


def test_a_split_by_hash_is_fair_and_fixed() -> None:
    assert records.share("v", "x") == records.share("v", "x") != records.share("v", "y")
    assert sum(records.share("v", str(i)) < 0.3 for i in range(2000)) == pytest.approx(600, abs=80)


def test_names() -> None:
    assert records.chosen(None, "abc", "letter") == ["a", "b", "c"]
    assert records.chosen(["c", "a"], "abc", "letter") == ["a", "c"]
    with pytest.raises(PlanError) as caught:
        records.chosen(["virolgy"], ["virology"], "subject")
    assert str(caught.value) == "there is no subject 'virolgy' in it (did you mean 'virology'?)"


def test_the_hub_tells_how_a_set_is_obtained(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    import datasets

    def missing(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", missing)
    with pytest.raises(Exception, match="hub cannot be reached") as caught:
        list(records.hub("owner/name", hint="ask for access"))
    assert caught.value.hint == "ask for access"  # type: ignore[attr-defined]


def test_every_dataset_of_published_data_comes_from_files_or_from_a_commit_of_the_hub(tmp_path: Path):
    sources = {
        entry.spec.name: entry.spec.config
        for entry in load_catalog().entries("dataset")
        if issubclass(entry.spec.config, records.Source)
    }
    assert {"mmlu", "wmdp-corpora", "tofu", "muse", "rwku", "crows-pairs", "paradetox"} <= set(sources)
    for name, config in sources.items():
        required = {"corpus": "bio-forget"} if name == "wmdp-corpora" else {}
        with pytest.raises(ValidationError, match="give one of them"):
            config(path=tmp_path, revision="0" * 40, **required)
