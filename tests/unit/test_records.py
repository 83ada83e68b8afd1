"""Records of published data: every file type gives the same records, and every fault has its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from unlearn_suite import DatasetSpec, PlanError, records
from unlearn_suite.errors import SuiteError
from unlearn_suite.plugins import load_catalog, load_target

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


class GatedRepoError(Exception):
    """Named like the hub's own."""


class DatasetNotFoundError(Exception):
    """Named like the library's own."""


REFUSALS = [
    (ConnectionError("no network"), "no-network", "hub cannot be reached"),
    (GatedRepoError("401"), "hub-gated", "to those who asked"),
    (DatasetNotFoundError("'a/b' is a gated dataset on the Hub. Visit its page"), "hub-gated", "to those who asked"),
    (DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub"), "data-file", "doesn't exist"),
    (ValueError("Unknown split 'test'. Should be one of ['train']."), "data", "Unknown split"),
]
PUBLISHED = {
    entry.spec.name: entry.spec
    for entry in load_catalog().entries("dataset")
    if issubclass(entry.spec.config, records.Source)
}
OPTIONS = {"wmdp-corpora": {"corpus": "bio-forget"}, "toxigen": {"form": "detection"}}


def test_every_dataset_tells_its_licence_size_and_source() -> None:
    yours = {"jsonl", "text", "hf", "passages"}
    for entry in load_catalog().entries("dataset"):
        spec = entry.spec
        assert isinstance(spec, DatasetSpec)
        told = bool(spec.licence), bool(spec.size), bool(spec.source)
        assert told == ((spec.name not in yours),) * 3, spec.name


def test_no_published_dataset_is_forgotten_here() -> None:
    names = "mmlu wmdp wmdp-corpora tofu muse rwku crows-pairs stereoset realtoxicityprompts paradetox toxigen"
    assert set(PUBLISHED) == set(names.split())


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_dataset_of_published_data_comes_from_files_or_from_a_commit_of_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit reaches the library; whatever the hub refuses is one error; files here are asked for by `path`."""
    datasets = pytest.importorskip("datasets")
    spec, options = PUBLISHED[name], OPTIONS.get(name, {})
    load = load_target(spec.load)
    with pytest.raises(ValidationError, match="give one of them"):
        spec.config(path=tmp_path, revision="0" * 40, **options)
    with pytest.raises(PlanError) as missing:
        load(spec.config(path=tmp_path, **options))
    assert missing.value.code == "data-file" and missing.value.hint
    for error, code, words in REFUSALS:
        asked: list[Any] = []

        def load_dataset(*_: object, error: Exception = error, asked: list[Any] = asked, **told: Any) -> None:
            asked.append(told["revision"])
            raise error

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(SuiteError, match=words) as caught:
            load(spec.config(revision="0" * 40, **options))
        assert asked == ["0" * 40] and caught.value.code == code and "\n" not in caught.value.message
        assert caught.value.where.startswith("hf:") and (code == "data" or "`path`" in caught.value.hint)
