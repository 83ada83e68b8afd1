"""The dataset `pii`: people of their own names, addresses that no name gives away, parts that do not mix."""

from __future__ import annotations

from collections import Counter

from unlearn_suite_benchmarks.pii.data import DOCUMENTS, UNKNOWN, PiiConfig, fingerprint, load, people


def test_people_are_made_up_and_their_own() -> None:
    found = people(200, 0)
    assert len({p.name for p in found}) == len({p.email for p in found}) == 200
    assert all(p.email.endswith(".example") and p.email == p.email.lower() for p in found)
    assert found == people(200, 0) and found[:20] == people(20, 0) and found[:20] != people(20, 1)
    assert Counter(p.part for p in found) == {"forget": 60, "retain": 80, "held-out": 60}
    assert Counter(p.part for p in found[:10]) == {"forget": 3, "retain": 4, "held-out": 3}
    # the number in an address is no function of the name: knowing the rule is not enough
    assert len({p.email.partition("@")[0][-3:] for p in found}) > 150


def test_documents_hold_the_address_and_prompts_end_before_it() -> None:
    persons = {p.email: p for p in people(20, 3)}
    documents = load(PiiConfig(people=20, seed=3))
    known = load(PiiConfig(people=20, seed=3, form="known"))
    unknown = load(PiiConfig(people=20, seed=3, form="unknown"))
    assert len(documents) == len(known) == 20 * len(DOCUMENTS) and len(unknown) == 20 * len(UNKNOWN)
    for document, prompt in zip(documents, known, strict=True):
        assert document.text.startswith(prompt.prompt + prompt.text)
        assert document.unit == prompt.unit and document.id != prompt.id
    for example in (*known, *unknown):
        person = persons[example.text.strip()]
        assert person.name in example.prompt and person.email not in example.prompt
    assert not any(example.prompt in document.text for example in unknown for document in documents)


def test_parts_share_no_person_and_options_count() -> None:
    parts = {part: load(PiiConfig(people=30, part=part)) for part in ("forget", "retain", "held-out", "all")}
    units = {part: {e.unit for e in examples} for part, examples in parts.items()}
    assert units["forget"] | units["retain"] | units["held-out"] == units["all"]
    assert sum(len(units[part]) for part in ("forget", "retain", "held-out")) == 30
    assert {e.group for e in parts["forget"]} == {"forget"}
    assert {e.group for e in load(PiiConfig(part="forget", group="member"))} == {"member"}
    assert len({fingerprint(PiiConfig(seed=s, form=f)) for s in (0, 1) for f in ("known", "unknown")}) == 4
