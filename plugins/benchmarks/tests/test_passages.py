"""The dataset `passages`: pieces of a text that are its own words, and a split that stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlearn_suite import PlanError
from unlearn_suite_benchmarks.memorisation.passages import PassagesConfig, cut_words, load

TEXT = "\n\n".join(f"Paragraph {i} tells  of\nsomething number {i * 7}." for i in range(40))


def test_pieces_are_parts_of_the_text_and_lose_only_a_short_rest() -> None:
    pieces = cut_words(TEXT, 10)
    assert all(piece in TEXT and len(piece.split()) == 10 for piece in pieces)
    assert " ".join(TEXT.split()).startswith(" ".join(" ".join(pieces).split()))
    assert [len(p.split()) for p in cut_words("a b c d e f g", 4)] == [4, 3]
    assert [len(p.split()) for p in cut_words("a b c d e", 4)] == [4]
    assert cut_words("a b", 8) == ["a b"] and cut_words(" \n", 8) == []


def test_the_parts_are_the_whole_and_stay_when_text_is_added(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(TEXT)
    parts = {part: load(PassagesConfig(path=path, words=10, part=part)) for part in ("forget", "held-out", "all")}
    ids = {part: {e.id for e in examples} for part, examples in parts.items()}
    assert ids["forget"] | ids["held-out"] == ids["all"] and not ids["forget"] & ids["held-out"]
    assert len(ids["held-out"]) == round(len(ids["all"]) / 4)
    assert [e.id for e in parts["all"]] == [f"book:{i}" for i in range(1, len(ids["all"]) + 1)]
    for part in ("forget", "held-out"):
        config = PassagesConfig(path=path, words=10, part=part, form="continuations", group="g")
        for e, whole in zip(load(config), parts[part], strict=True):
            assert e.prompt + e.text == whole.text and e.text[0].isspace() and e.group == "g"
            assert len(e.prompt.split()) == len(e.text.split()) == 5
    assert len(load(PassagesConfig(path=path, words=10, part="forget", held_out=0))) == len(ids["all"])


def test_records_are_passages_and_repeated_ones_count_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"text": "one two three"}\n{"text": "one  two three"}\n{"prompt": "say", "text": " so"}\n{"text": "x"}'
    )
    found = [(e.id, e.prompt, e.text) for e in load(PassagesConfig(path=path, form="continuations"))]
    assert found == [("rows:1", "one", " two three"), ("rows:3", "say", " so"), ("rows:4", "", "x")]


def test_beginnings_are_what_continuations_are_given_and_nothing_they_ask(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "one two three four"}\n{"prompt": "say", "text": " so"}\n{"text": "x"}\n{"text": "a b"}')
    config = PassagesConfig(path=path, limit=3)
    asked = [e for e in load(config.model_copy(update={"form": "continuations"})) if e.prompt]
    told = load(config.model_copy(update={"form": "beginnings"}))
    assert [(e.id, e.prompt, e.text) for e in told] == [("rows:1", "", "one two"), ("rows:2", "", "say")]
    assert [(e.id, e.text) for e in told] == [(e.id, e.prompt) for e in asked]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "", "there is no passage in it"),
        ("a.txt", "one two", "one passage cannot be split"),
        ("a.txt", b"\xff\xfe", "no UTF-8"),
        ("a.jsonl", '{"txt": "x"}', "there is no column 'text'; its columns are txt"),
        ("a.jsonl", '{"text": 3}', "'text' should be text and is a int"),
        ("a.jsonl", '{"text": ""}', "'text' should be text and is empty"),
        ("a.pdf", "x", "of no known type"),
    ],
)
def test_what_is_no_text_is_refused(name: str, content: str | bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PlanError, match=words) as caught:
        load(PassagesConfig(path=tmp_path / name, part="forget"))
    assert str(tmp_path / name) in caught.value.where
