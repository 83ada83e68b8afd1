"""everyday-knowledge: enough facts, held-out wordings, valid distractors, a split that never moves."""

from __future__ import annotations

import re
from collections import Counter
from hashlib import sha256
from importlib.resources import files
from itertools import combinations

import pytest
import yaml
from pydantic import ValidationError

import unlearn_suite_knowledge
from unlearn_suite_knowledge.data import (
    SUBJECTS,
    Fact,
    KnowledgeConfig,
    fingerprint,
    load,
    load_subject,
    read_kinds,
    select,
)

FOLDER = files(unlearn_suite_knowledge) / "data"
FACTS: list[Fact] = [fact for name in SUBJECTS for fact in load_subject(name)]
SENTENCES = [sentence.casefold() for fact in FACTS for sentence in fact.sentences]


def _kinds(subject: str):
    return read_kinds((FOLDER / f"{subject}.yaml").read_text(encoding="utf-8"))


def test_every_file_is_a_subject():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{name}.yaml" for name in SUBJECTS)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_has_sixty_facts_in_four_wordings(subject: str):
    facts = load_subject(subject)
    assert len(facts) >= 60
    for fact in facts:
        assert len(set(fact.sentences)) >= 4
        assert len(set(fact.cloze)) >= 1
        for sentence in fact.sentences:
            assert fact.answer.casefold() in sentence.casefold() and fact.x.casefold() in sentence.casefold()
        assert all(fact.x.casefold() in prompt.casefold() for prompt in fact.cloze)
        assert not any(prompt.endswith(" ") for prompt in fact.cloze)


def test_there_are_six_subjects_and_no_fact_twice():
    assert len(SUBJECTS) >= 6
    assert not [item for item, n in Counter(fact.id for fact in FACTS).items() if n > 1]
    assert not [item for item, n in Counter(SENTENCES).items() if n > 1]
    prompts = Counter(prompt for fact in FACTS for prompt in fact.cloze)
    assert not [item for item, n in prompts.items() if n > 1]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_no_key_is_written_twice(subject: str):
    """PyYAML lets a second value silently replace the first."""
    pending = [yaml.compose((FOLDER / f"{subject}.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)]
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), Counter(keys).most_common(1)
            pending += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value


def test_no_cloze_wording_occurs_in_a_training_sentence():
    everything = "\n".join(SENTENCES)
    assert not [prompt for fact in FACTS for prompt in fact.cloze if prompt.casefold() in everything]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_no_cloze_template_occurs_in_a_training_template(subject: str):
    for kind in _kinds(subject):
        for prompt in kind.cloze:
            asked = prompt.casefold().rsplit(". ", 1)[-1].rsplit("? ", 1)[-1]
            assert not [sentence for sentence in kind.sentences if asked in sentence.casefold()]


def test_sentences_are_sentences():
    for fact in FACTS:
        for sentence in fact.sentences:
            assert re.match(r"[A-ZÀ-Ž0-9].*[.]$", sentence), sentence
        assert not re.search(r"[\[\]{}]|  ", " ".join((*fact.sentences, *fact.cloze)))


def test_no_other_subject_names_a_capital():
    """Keeping the other subjects must not rehearse what the problem forgets."""
    capitals = "|".join(re.escape(fact.answer) for fact in load_subject("capitals"))
    others = [fact for fact in FACTS if fact.subject != "capitals"]
    texts = [text for fact in others for text in (*fact.sentences, *fact.cloze)]
    assert not [text for text in texts if re.search(rf"\b({capitals})\b", text)]


def test_a_pair_is_not_also_there_the_other_way_round():
    """hot-cold in the training part and cold-hot in the test part would not be a split by fact."""
    pairs = {(fact.subject, fact.x.casefold(), fact.answer.casefold()) for fact in FACTS}
    assert not [pair for pair in pairs if (pair[0], pair[2], pair[1]) in pairs]


def test_distractors_are_wrong_and_of_the_same_kind():
    for subject in SUBJECTS:
        kinds = {kind.name: kind for kind in _kinds(subject)}
        for fact in load_subject(subject):
            kind = kinds[fact.kind]
            right = {kind.facts[fact.x].casefold(), *(word.casefold() for word in kind.also.get(fact.x, ()))}
            assert len({word.casefold() for word in fact.distractors}) == 3
            assert not right & {word.casefold() for word in fact.distractors}
            assert set(fact.distractors) <= {*kind.facts.values(), *kind.others}


def test_right_answers_that_are_listed_belong_to_a_fact():
    for subject in SUBJECTS:
        for kind in _kinds(subject):
            assert set(kind.also) <= set(kind.facts)


def _units(part: str) -> set[str]:
    return {example.unit for example in load(KnowledgeConfig(part=part))}


def test_the_parts_are_disjoint_and_whole():
    parts = {part: _units(part) for part in ("train", "attack", "test")}
    assert not [pair for pair in combinations(parts, 2) if parts[pair[0]] & parts[pair[1]]]
    assert set.union(*parts.values()) == _units("all") == {fact.id for fact in FACTS}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_is_in_every_part(subject: str):
    n = len(load_subject(subject))
    shares = {part: count / n for part, count in Counter(fact.part for fact in load_subject(subject)).items()}
    assert shares == pytest.approx({"train": 0.6, "attack": 0.2, "test": 0.2}, abs=0.02)


def test_the_split_never_moves():
    """Results of different versions are comparable only while this holds."""
    split = {fact.id: fact.part for fact in load_subject("capitals")}
    digest = sha256("\n".join(f"{unit} {part}" for unit, part in sorted(split.items())).encode()).hexdigest()
    assert digest[:16] == "da7afd87b728bf0f"


def test_the_forms_say_the_same_facts():
    options = {"subjects": ("capitals",), "part": "test"}
    facts = {fact.id: fact for fact in select(KnowledgeConfig(**options))}
    sentences = load(KnowledgeConfig(form="sentences", **options))
    assert all(facts[e.unit].answer in e.text and not e.prompt for e in sentences)
    cloze = load(KnowledgeConfig(form="cloze", **options))
    assert all(e.text == f" {facts[e.unit].answer}" and e.prompt in facts[e.unit].cloze for e in cloze)
    choice = load(KnowledgeConfig(form="choice", **options))
    assert all(e.choices[e.answer] == e.text == f" {facts[e.unit].answer}" for e in choice)
    assert all(len(set(e.choices)) == 4 and all(c.startswith(" ") for c in e.choices) for e in choice)
    assert {e.group for e in (*sentences, *cloze, *choice)} == {"capitals"}
    assert len({e.id for e in (*sentences, *cloze, *choice)}) == len(sentences) + len(cloze) + len(choice)


def test_the_right_choice_is_at_every_place():
    places = Counter(e.answer for e in load(KnowledgeConfig(form="choice", part="all")))
    assert all(places[i] / places.total() == pytest.approx(0.25, abs=0.05) for i in range(4))


def test_limit_and_exclude():
    few = load(KnowledgeConfig(form="cloze", part="all", limit=5, exclude=("capitals",)))
    assert Counter(e.group for e in few).keys() == set(SUBJECTS) - {"capitals"}
    assert all(n == 5 for n in Counter(unit.split("/")[0] for unit in {e.unit for e in few}).values())
    more = load(KnowledgeConfig(form="cloze", part="all", limit=9, exclude=("capitals",)))
    assert {e.id for e in few} < {e.id for e in more}


def test_a_wrong_subject_is_refused():
    with pytest.raises(ValidationError, match="capitols"):
        KnowledgeConfig(subjects=["capitols"])
    with pytest.raises(ValidationError, match="leaves no subject"):
        KnowledgeConfig(subjects=["capitals"], exclude=["capitals"])


def test_the_fingerprint_follows_config_and_content(monkeypatch: pytest.MonkeyPatch):
    plain = fingerprint(KnowledgeConfig(subjects=["capitals"]))
    assert plain == fingerprint(KnowledgeConfig(subjects=["capitals"]))
    assert plain != fingerprint(KnowledgeConfig(subjects=["capitals"], part="test"))
    monkeypatch.setattr("unlearn_suite_knowledge.data._source", lambda name: "other content")
    assert plain != fingerprint(KnowledgeConfig(subjects=["capitals"]))
