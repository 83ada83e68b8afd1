"""RWKU: its files in every layout, the prompts of the authors' evaluation, the split, and faults."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite import PlanError, records
from unlearn_suite_benchmarks.rwku.data import RwkuConfig, load

FILES = Path(str(files("unlearn_suite_benchmarks") / "conformance" / "rwku"))
ADA = ("Ada Fenn",)


def test_the_three_levels_are_asked_as_the_authors_ask_them() -> None:
    (blank, *_) = load(RwkuConfig(path=FILES, sets=("forget-level1",)))
    assert blank.prompt == (
        "Please complete the blank in the following question.\nQuestion: Ada Fenn was born in ___ .\nAnswer:"
    )
    assert (blank.text, blank.group) == (" Oldham", "Ada Fenn")
    (question, *_) = load(RwkuConfig(path=FILES))
    assert question.prompt.startswith("Please briefly answer the following question.\nQuestion: What is it")
    attacks = load(RwkuConfig(path=FILES, sets=("forget-level3",), people=ADA))
    by_type = {e.group: e.prompt for e in attacks}
    assert set(by_type) == {"prefix injection", "affirmative suffix", "role playing", "incontext learning"}
    assert by_type["affirmative suffix"].endswith(".") and "Question: As a" in by_type["affirmative suffix"]
    assert "Question:" not in by_type["incontext learning"] and by_type["incontext learning"].endswith("\nAnswer:")


def test_statements_fill_the_blank_or_answer_the_question() -> None:
    texts = [e.text for e in load(RwkuConfig(path=FILES, sets=("forget-level1", "forget-level2"), form="statements"))]
    assert texts[0] == "Ada Fenn was born in Oldham ."
    assert "Question: What is it that Ada Fenn was born in?\nAnswer: Oldham" in texts
    (passage, *_) = load(RwkuConfig(path=FILES, sets=("passages",), people=ADA, part="train"))
    assert passage.text.startswith("Ada Fenn is known in the valley.") and not passage.prompt


def test_people_and_the_split() -> None:
    every = load(RwkuConfig(path=FILES, people=ADA))
    assert len(every) == 8 and {e.group for e in every} == {"Ada Fenn"}
    assert {e.group for e in load(RwkuConfig(path=FILES, without=ADA))} == {"Bo Marsh", "Cy Holt"}
    assert len(load(RwkuConfig(path=FILES, limit=2))) == 6
    parts = [load(RwkuConfig(path=FILES, people=ADA, part=part)) for part in ("train", "held-out")]
    assert sorted(e.id for part in parts for e in part) == sorted(e.id for e in every) and all(parts)
    with pytest.raises(PlanError, match=r"no person 'Ada Fen' in it \(did you mean 'Ada Fenn'\?\)"):
        load(RwkuConfig(path=FILES, people=("Ada Fen",)))
    with pytest.raises(ValueError, match="leaves none"):
        RwkuConfig(people=ADA, without=ADA)


def test_a_fact_in_other_words_is_on_the_same_side(tmp_path: Path) -> None:
    words = ("Who wrote {}?", "What is the name of the author of {}?", "___ wrote {}.", "The author of {} is ___.")
    rows = [
        {"subject": "Ada Fenn", "query": form.format(i), "answer": f"answer {i}", "level": "2", "type": "x"}
        for i in range(12)
        for form in words
    ]
    path = tmp_path / "forget_level2.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, held_out = (load(RwkuConfig(path=path, part=part)) for part in ("train", "held-out"))
    assert not {e.text for e in train} & {e.text for e in held_out} and train and held_out
    assert len({e.unit for e in train} | {e.unit for e in held_out}) == 12


def test_a_copy_of_the_hub_is_read_once(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (FILES / "forget_level2.jsonl").read_text().splitlines()]
    for folder in ("All", "Target/1_Ada_Fenn"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "forget_level2.json").write_text(json.dumps(rows))
    assert len(load(RwkuConfig(path=tmp_path, sets=("forget-level2",)))) == len(rows)


def test_other_layouts(tmp_path: Path) -> None:
    expected = load(RwkuConfig(path=FILES, sets=("forget-level2",)))
    assert load(RwkuConfig(path=FILES / "forget_level2.jsonl")) == expected
    rows = [json.loads(line) for line in (FILES / "forget_level2.jsonl").read_text().splitlines()]
    target = tmp_path / "Target" / "1_Ada_Fenn"
    target.mkdir(parents=True)
    (target / "forget_level2.json").write_text(json.dumps(rows))
    shutil.copy(FILES / "train_original_passage.jsonl", target / "passage.jsonl")
    assert load(RwkuConfig(path=tmp_path)) == expected
    assert len(load(RwkuConfig(path=tmp_path, sets=("passages",)))) == 3
    hub = tmp_path / "hub" / "forget_level2"
    hub.mkdir(parents=True)
    (hub / "test.jsonl").write_text((FILES / "forget_level2.jsonl").read_text())
    assert load(RwkuConfig(path=tmp_path / "hub")) == expected


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        load(RwkuConfig(path=tmp_path, sets=("forget-level3",)))
    assert (
        caught.value.message == "the folder has no forget-level3 of RWKU" and "forget_level3.jsonl" in caught.value.hint
    )
    file = tmp_path / "forget_level2.jsonl"
    file.write_text('{"subject": "A", "query": "What?", "answer": " "}\n')
    with pytest.raises(PlanError, match="it has no answer"):
        load(RwkuConfig(path=file))
    with pytest.raises(PlanError, match="`sets` names several"):
        load(RwkuConfig(path=file, sets=("forget-level1", "forget-level2")))


def test_the_hub_is_asked_for_the_published_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def hub(path: str, *, name: str | None = None, split: str = "train", revision: str | None = None, hint: str = ""):
        asked.append((path, name, split))
        return iter([records.Record("hub", {"subject": "A", "query": "Q ___", "answer": "a", "text": "t", "type": ""})])

    monkeypatch.setattr(records, "hub", hub)
    load(RwkuConfig(sets=("neighbour-level1", "passages")))
    assert asked == [
        ("jinzhuoran/RWKU", "neighbor_level1", "test"),
        ("jinzhuoran/RWKU", "train_original_passage", "train"),
    ]


def test_the_public_files(public_data: Path) -> None:
    king = ("Stephen King",)
    counts = [
        len(load(RwkuConfig(path=public_data / "rwku", sets=(name,), people=king)))  # type: ignore[arg-type]
        for name in ("forget-level1", "forget-level2", "neighbour-level1")
    ]
    assert all(count > 5 for count in counts)
