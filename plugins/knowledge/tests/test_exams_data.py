"""MMLU, WMDP and its corpora from files: the forms they are published in, the split, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from unlearn_suite import Example, PlanError, PrerequisiteError, records
from unlearn_suite_knowledge.exams import corpora, mmlu, wmdp
from unlearn_suite_knowledge.exams.corpora import CorporaConfig
from unlearn_suite_knowledge.exams.mmlu import MmluConfig
from unlearn_suite_knowledge.exams.subjects import FIELDS, SUBJECTS, neighbours
from unlearn_suite_knowledge.exams.wmdp import WmdpConfig

ORIGINAL = '"Where, then?",here,"there, too",up,down,B\nWhen?,now,later,never,once,D\n'
WITH_HEADER = "question,choice0,choice1,choice2,choice3,answer\n" + ORIGINAL.replace(",B", ",1").replace(",D", ",3")


def folder_of(root: Path, **subjects: str) -> Path:
    (root / "test").mkdir(parents=True)
    for name, text in subjects.items():
        (root / "test" / f"{name}_test.csv").write_text(text, encoding="utf-8")
    return root


def test_both_forms_of_mmlu_give_the_same(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, virology=ORIGINAL, anatomy=WITH_HEADER)
    both = mmlu.load(MmluConfig(path=folder))
    assert [e.id for e in both] == ["anatomy/test/0", "anatomy/test/1", "virology/test/0", "virology/test/1"]
    for one, two in zip(both[:2], both[2:], strict=True):
        assert (one.prompt, one.choices, one.answer) == (two.prompt, two.choices, two.answer)
    assert both[0] == Example(
        "anatomy/test/0",
        text="there, too",
        prompt="Where, then?",
        choices=("here", "there, too", "up", "down"),
        answer=1,
        group="anatomy",
    )
    (_, second) = mmlu.load(MmluConfig(path=folder, subjects=("virology",), form="statement"))
    assert (second.prompt, second.text) == ("", "Question: When?\nAnswer: once")
    (cloze, _) = mmlu.load(MmluConfig(path=folder, near="virology", form="cloze"))
    assert (cloze.group, cloze.prompt, cloze.text) == ("anatomy", "Question: Where, then?\nAnswer:", " there, too")


def test_parquet_files_as_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "virology").mkdir()
    rows = [{"question": "When?", "subject": "virology", "choices": ["now", "later", "never", "once"], "answer": 3}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "virology" / "test-00000-of-00001.parquet")
    (example,) = mmlu.load(MmluConfig(path=tmp_path))
    assert (example.id, example.answer, example.choices[3]) == ("virology/test/0", 3, "once")


def test_the_split_is_by_question(tmp_path: Path) -> None:
    lines = "".join(f"Is it {i}?,yes,no,maybe,later,A\n" for i in range(60))
    folder = folder_of(tmp_path, virology=lines + lines)  # every question twice
    train = mmlu.load(MmluConfig(path=folder, part="train", form="statement"))
    held_out = mmlu.load(MmluConfig(path=folder, part="held-out", form="statement"))
    assert len(train) + len(held_out) == 120 and 40 < len(train) < 80
    assert not {e.text for e in train} & {e.text for e in held_out}


def test_every_subject_has_a_field_and_neighbours() -> None:
    assert sorted(name for field in FIELDS.values() for name in field) == sorted(SUBJECTS) and len(SUBJECTS) == 57
    assert neighbours("college_biology") == ("high_school_biology",)
    assert len(neighbours("high_school_geography")) == 56


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("Q?,a,b,c,d,E\n", {}, "the answer 'E' is none of its 4 choices"),
        ("Q?,a,b,c,d,4\n", {}, "the answer '4' is none of its 4 choices"),
        ("Q?,a,b,c,A\n", {}, "it has 5 fields where there are 6 columns"),
        ("Q?,a,,c,d,A\n", {}, "'1' should be text and is empty"),
        (ORIGINAL, {"subjects": ("anatomy",)}, "there is no subject 'anatomy' in it"),
        (ORIGINAL, {"near": "college_biology"}, "no subject of the field of college_biology is there"),
    ],
)
def test_faults_of_mmlu(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    folder = folder_of(tmp_path, virology=text)
    with pytest.raises(PlanError) as caught:
        mmlu.load(MmluConfig(path=folder, **options))
    assert caught.value.message.startswith(message) and caught.value.where.startswith(str(tmp_path))
    with pytest.raises(PlanError, match="no files of MMLU"):
        mmlu.load(MmluConfig(path=folder / "test"))


def wmdp_rows(count: int) -> list[dict[str, Any]]:
    return [{"question": f"Which {i}?", "choices": ["a", "b", "c", "d"], "answer": i % 4} for i in range(count)]


def test_wmdp_from_every_file_type(tmp_path: Path) -> None:
    rows = wmdp_rows(5)
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "bio_questions.json").write_text(json.dumps(rows))
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "hub" / "wmdp-bio").mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "hub" / "wmdp-bio" / "test-0.parquet")
    found = [wmdp.load(WmdpConfig(path=tmp_path / name)) for name in ("list", "lines.jsonl", "hub")]
    assert found[0] == found[1] == found[2]
    assert (found[0][4].id, found[0][4].answer, found[0][4].group) == ("wmdp-bio/4", 0, "biology")
    assert len(wmdp.load(WmdpConfig(path=tmp_path / "list", limit=2))) == 2
    with pytest.raises(PlanError, match="lacks the files"):
        wmdp.load(WmdpConfig(path=tmp_path / "list", fields=("cyber",)))
    with pytest.raises(PlanError, match="`path` is a file"):
        wmdp.load(WmdpConfig(path=tmp_path / "lines.jsonl", fields=("bio", "chem")))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"choices": "abcd"}, "`choices` should be a list"), ({"answer": True}, "the answer True"),
     ({"choices": ["a", " "]}, "one of its choices is no text"), ({"question": ""}, "'question' should be text")],
)  # fmt: skip
def test_faults_of_wmdp(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "bio.jsonl"
    file.write_text(json.dumps({**wmdp_rows(1)[0], **change}))
    with pytest.raises(PlanError) as caught:
        wmdp.load(WmdpConfig(path=file))
    assert caught.value.message.startswith(message) and caught.value.where == f"{file}:1"


def test_corpora_are_parsed_not_taken_raw(tmp_path: Path) -> None:
    long = "word " * 20
    for name in ("bio_remove_dataset", "cyber-forget-corpus"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"title": "t", "text": long}) + '\n{"text": "short"}\n')
    for corpus, stem in (("bio-forget", "bio-forget/0"), ("cyber-forget", "cyber-forget/0")):
        (example,) = corpora.load(CorporaConfig(corpus=corpus, path=tmp_path))  # type: ignore[arg-type]
        assert (example.text, example.id) == (long, stem)
    (tmp_path / "cyber-forget-corpus.jsonl").write_text(json.dumps(long) + "\n")
    (example,) = corpora.load(CorporaConfig(corpus="cyber-forget", path=tmp_path))
    assert example.text == long
    with pytest.raises(PlanError, match="lacks the files"):
        corpora.load(CorporaConfig(corpus="bio-retain", path=tmp_path))
    (tmp_path / "bio_retain.jsonl").write_text('{"abstract": "x"}\n')
    with pytest.raises(PlanError, match="no column 'text'"):
        corpora.load(CorporaConfig(corpus="bio-retain", path=tmp_path))


def test_a_gated_corpus_says_how_it_is_obtained(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def missing(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", missing)
    with pytest.raises(PrerequisiteError) as caught:
        corpora.load(CorporaConfig(corpus="bio-forget"))
    assert corpora.GATED in caught.value.hint and "HF_TOKEN" in caught.value.hint and caught.value.exit_code == 4


def test_the_hub_is_asked_for_the_published_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def hub(path: str, *, name: str | None = None, split: str = "train", revision: str | None = None, hint: str = ""):
        asked.append((path, name, split, revision))
        return iter([records.Record("hf", {**wmdp_rows(1)[0], "text": "x" * 60})])

    monkeypatch.setattr(records, "hub", hub)
    mmlu.load(MmluConfig(subjects=("virology",), splits=("val",), revision="abc"))
    wmdp.load(WmdpConfig(fields=("cyber",)))
    corpora.load(CorporaConfig(corpus="cyber-retain"))
    assert asked == [
        ("cais/mmlu", "virology", "validation", "abc"),
        ("cais/wmdp", "wmdp-cyber", "test", None),
        ("cais/wmdp-corpora", "cyber-retain-corpus", "train", None),
    ]


def test_the_public_mmlu_files(public_data: Path) -> None:
    examples = mmlu.load(MmluConfig(path=public_data / "mmlu", splits=("dev", "test")))
    assert len({e.group for e in examples}) == 20 and len(examples) > 4000
    assert all(len(e.choices) == 4 for e in examples)
    near = mmlu.load(MmluConfig(path=public_data / "mmlu", near="virology"))
    assert {e.group for e in near} == {"clinical_knowledge", "human_aging", "medical_genetics", "nutrition"}
