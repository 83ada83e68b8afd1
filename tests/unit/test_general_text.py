"""general-text: enough plain paragraphs, disjoint parts, nothing of what the problems forget."""

from __future__ import annotations

import re
from collections import Counter
from hashlib import sha256

import pytest

from unlearn_suite.builtin import general_text
from unlearn_suite.builtin.general_text import GeneralTextConfig, fingerprint, load, paragraphs


def test_there_are_enough_paragraphs_of_one_size():
    texts = paragraphs()
    assert len(texts) >= 120 and len(set(texts)) == len(texts)
    assert all(50 <= len(text.split()) <= 90 for text in texts)
    assert all(text[-1] == "." and "  " not in text for text in texts)
    openings = Counter(" ".join(text.split()[:3]) for text in texts)
    assert openings.most_common(1)[0][1] <= 2


def test_the_parts_are_disjoint_and_whole():
    train = {example.id for example in load(GeneralTextConfig(part="train"))}
    test = {example.id for example in load(GeneralTextConfig(part="test"))}
    assert not train & test
    assert train | test == {example.id for example in load(GeneralTextConfig(part="all"))}
    assert len(train) / len(train | test) == pytest.approx(0.7, abs=0.01)


def test_the_split_never_moves():
    ids = "\n".join(example.id for example in load(GeneralTextConfig(part="test")))
    assert sha256(ids.encode()).hexdigest()[:16] == "0b1b934a329260d4"


def test_limit_is_a_prefix():
    few = load(GeneralTextConfig(part="test", limit=3))
    assert few == load(GeneralTextConfig(part="test"))[:3]


def test_nothing_that_the_problems_forget_is_in_it():
    from unlearn_suite_knowledge.data import load_subject

    words = " ".join(paragraphs())
    for fact in load_subject("capitals"):
        assert not re.search(rf"\b{re.escape(fact.answer)}\b", words), fact.answer
    assert not re.search(r"\b(capital|damn|hell|shit|idiot|stupid|moron|bastard|bloody|fuck)\w*", words.casefold())


def test_the_fingerprint_follows_config_and_text(monkeypatch: pytest.MonkeyPatch):
    plain = fingerprint(GeneralTextConfig())
    assert plain == fingerprint(GeneralTextConfig())
    assert plain != fingerprint(GeneralTextConfig(part="test"))
    monkeypatch.setattr(general_text, "_source", lambda: "One paragraph.\n\nAnother one.")
    assert plain != fingerprint(GeneralTextConfig())


def test_the_spec_loads_what_it_names():
    found = general_text.spec()
    assert found.load == "unlearn_suite.builtin.general_text:load"
    assert found.fingerprint == "unlearn_suite.builtin.general_text:fingerprint"
