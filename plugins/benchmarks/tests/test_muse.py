"""The dataset `muse` from a folder in the layout of the release, written here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from unlearn_suite import Example, PlanError, records
from unlearn_suite.engine.held_out import hold_out
from unlearn_suite.specs import Stop
from unlearn_suite_benchmarks.muse.data import MuseConfig, load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path / "knowmem/forget_qa.json", [{"question": "Who won?", "answer": "Blue"}])
    put(
        tmp_path / "knowmem/forget_qa_icl.json",
        [{"question": "When?", "answer": "In May"}, {"question": "How?", "answer": "So"}],
    )
    put(tmp_path / "verbmem/forget.json", [{"prompt": "Once upon", "gt": " a time"}])
    put(tmp_path / "privleak/forget.json", ["seen"])
    put(tmp_path / "privleak/holdout.json", [{"text": "not seen"}])
    for name in ("raw/forget.txt", "scal/forget_2.txt", "sust/forget_3.txt"):
        put(tmp_path / name, f"{name} " + "word " * 20)
    return tmp_path


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def test_questions_follow_the_worked_examples(folder: Path) -> None:
    (asked,) = load(MuseConfig(set="forget-qa", path=folder))
    assert (
        asked.prompt == "Question: When?\nAnswer: In May\n\nQuestion: How?\nAnswer: So\n\nQuestion: Who won?\nAnswer:"
    )
    assert asked.text == " Blue" and asked.id == "news/forget-qa/0"
    (bare,) = load(MuseConfig(set="forget-qa", path=folder, shots=False))
    assert bare.prompt == "Question: Who won?\nAnswer:"


def test_texts_are_cut_and_sets_are_found(folder: Path) -> None:
    def texts(**options: Any) -> list[Example]:
        return list(load(MuseConfig(path=folder, words=8, **options)))

    pieces = texts(set="forget")
    assert [len(e.text.split()) for e in pieces] == [8, 8, 5] and pieces[0].text.startswith("raw/forget.txt")
    assert len({e.id for e in pieces}) == 3
    assert texts(set="scal-2")[0].text.startswith("scal/forget_2") and texts(set="sust-3")[0].text.startswith("sust")
    assert [(e.text, e.group) for e in texts(set="member") + texts(set="non-member")] == [
        ("seen", "member"),
        ("not seen", "non-member"),
    ]
    (verbatim,) = texts(set="verbatim")
    assert (verbatim.prompt, verbatim.text) == ("Once upon", " a time")
    assert len(texts(set="forget", limit=2)) == 2


def test_passages_of_running_text_are_units_and_those_of_an_article_one(tmp_path: Path) -> None:
    put(tmp_path / "txt/raw/retain1.txt", "word " * 240)
    put(tmp_path / "rows/raw/retain1.json", [{"text": "word " * 80}, {"text": "word " * 160}])

    def held_out(folder: str, corpus: Any) -> tuple[int, int]:
        examples = {"retain": load(MuseConfig(corpus=corpus, set="retain", path=tmp_path / folder, words=8))}
        kept, out = hold_out(examples, Stop(retain_kl=1.0, examples=4))
        return len(kept["retain"]), len(out)

    assert held_out("txt", "news") == (26, 4)
    assert held_out("rows", "books") == (26, 4)
    pieces = load(MuseConfig(set="retain", path=tmp_path / "rows", words=8))
    assert Counter(e.unit for e in pieces) == {"news/retain/0": 10, "news/retain/1": 20}


def test_both_corpora_in_one_folder_and_flat_names(tmp_path: Path) -> None:
    for corpus in ("news", "books"):
        put(tmp_path / corpus / "verbmem/forget.json", [{"prompt": corpus, "gt": " x"}])
    assert load(MuseConfig(corpus="books", set="verbatim", path=tmp_path))[0].prompt == "books"
    put(tmp_path / "flat/hp_knowmem_retain2_qa.json", [{"question": "Who?", "answer": "He"}])
    put(tmp_path / "flat/bbc_knowmem_retain2_qa.json", [{"question": "What?", "answer": "It"}])
    (asked,) = load(MuseConfig(corpus="books", set="retain-qa", path=tmp_path / "flat", shots=False))
    assert asked.text == " He"


def test_a_copy_of_the_hub_is_read_once(tmp_path: Path) -> None:
    put(tmp_path / "privleak/forget.json", [{"text": "older"}])
    rows = pyarrow.table({"text": ["newer", "and more"]})
    pyarrow.parquet.write_table(rows, tmp_path / "privleak/forget-00000-of-00001.parquet")
    assert [e.text for e in load(MuseConfig(set="member", path=tmp_path))] == ["newer", "and more"]


def test_what_is_no_release_is_told(folder: Path) -> None:
    with pytest.raises(PlanError, match="lacks the files of the release") as caught:
        load(MuseConfig(set="retain-qa", path=folder))
    assert "knowmem/retain_qa_icl" in caught.value.hint
    put(folder / "verbmem/forget.json", [{"prompt": "Once upon", "ground_truth": " a time"}])
    with pytest.raises(PlanError, match="there is no column 'gt'; its columns are prompt, ground_truth"):
        load(MuseConfig(set="verbatim", path=folder))


@pytest.mark.parametrize("corpus", ["news", "books"])
def test_the_published_questions(corpus: Any, public_data: Path) -> None:
    for part in ("forget-qa", "retain-qa"):
        found = load(MuseConfig(corpus=corpus, set=part, path=public_data / "muse", shots=False))
        assert len(found) == 100 and all(e.prompt.endswith("?\nAnswer:") or e.text for e in found)


def test_the_hub_is_asked_for_the_configuration_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def hub(path: str, *, name: str, split: str, revision: str | None, hint: str) -> list[records.Record]:
        asked.append((path, name, split, revision))
        return [records.Record("here", {"question": "Who?", "answer": "He", "text": "some words"})]

    monkeypatch.setattr(records, "hub", hub)
    load(MuseConfig(corpus="books", set="retain-qa", revision="abc"))
    load(MuseConfig(set="sust-4"))
    load(MuseConfig(set="retain"))
    assert asked == [
        ("muse-bench/MUSE-Books", "knowmem", "retain_qa_icl", "abc"),
        ("muse-bench/MUSE-Books", "knowmem", "retain_qa", "abc"),
        ("muse-bench/MUSE-News", "sust", "forget_4", None),
        ("muse-bench/MUSE-News", "raw", "retain1", None),
    ]
