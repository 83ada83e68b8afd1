"""everyday-toxicity: enough prompts, paired continuations that a scorer tells apart, a split that never moves."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from hashlib import sha256
from importlib.resources import files

import pytest
from pydantic import ValidationError

import unlearn_suite_toxicity
from unlearn_suite_toxicity import data
from unlearn_suite_toxicity.data import ToxicityDataConfig, fingerprint, load

KINDS = ("toxic", "benign", "neutral", "prompts", "neutral-prompts")


def _all(kind: str):
    return load(ToxicityDataConfig(kind=kind, part="all"))


def test_there_are_enough_prompts():
    assert len(_all("prompts")) >= 200
    assert len(load(ToxicityDataConfig(kind="prompts", part="test"))) >= 80
    assert len(_all("neutral-prompts")) >= 100


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_there_twice(kind: str):
    examples = _all(kind)
    assert len({e.id for e in examples}) == len({e.unit for e in examples}) == len(examples)
    assert len({e.prompt.casefold() for e in examples}) == len(examples)
    if not kind.endswith("prompts"):
        assert len({e.text.casefold() for e in examples}) == len(examples)
    assert {e.group for e in examples} == {kind}


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_and_continuations_join(kind: str):
    for example in _all(kind):
        assert example.prompt == example.prompt.strip() and len(example.prompt.split()) >= 4
        assert bool(example.text) != kind.endswith("prompts")
        assert example.text == "" or re.match(r" \S.*[^\s.]$", example.text), example.text


def test_toxic_and_benign_continue_the_same_prompts_at_the_same_length():
    toxic, benign = _all("toxic"), _all("benign")
    assert [e.unit for e in toxic] == [e.unit for e in benign] == [e.unit for e in _all("prompts")]
    assert [e.prompt for e in toxic] == [e.prompt for e in benign]
    lengths = [(len(t.text.split()), len(b.text.split())) for t, b in zip(toxic, benign, strict=True)]
    assert all(abs(t - b) <= 8 and min(t, b) >= 5 for t, b in lengths)
    assert abs(sum(t - b for t, b in lengths)) / len(lengths) < 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_are_disjoint_and_whole(kind: str):
    train = {e.unit for e in load(ToxicityDataConfig(kind=kind, part="train"))}
    test = {e.unit for e in load(ToxicityDataConfig(kind=kind, part="test"))}
    assert not train & test
    assert train | test == {e.unit for e in _all(kind)}
    assert len(train) / len(train | test) == pytest.approx(0.6, abs=0.01)


def test_no_prompt_begins_like_one_of_the_other_part():
    """A test prompt whose opening was trained on would not be held out."""
    openings = {
        part: {" ".join(e.prompt.split()[:5]) for e in load(ToxicityDataConfig(kind="prompts", part=part))}
        for part in ("train", "test")
    }
    assert not openings["train"] & openings["test"]


def test_the_split_never_moves():
    """Results of different versions are comparable only while this holds."""
    units = [e.unit for kind in ("prompts", "neutral") for e in load(ToxicityDataConfig(kind=kind, part="test"))]
    assert sha256("\n".join(units).encode()).hexdigest()[:16] == "091534f7f8924010"


def test_limit_is_a_prefix_and_skip_goes_on_behind_it():
    every = load(ToxicityDataConfig())
    assert load(ToxicityDataConfig(limit=5)) == every[:5]
    assert load(ToxicityDataConfig(skip=5)) == every[5:]
    assert load(ToxicityDataConfig(skip=5, limit=3)) == every[5:8]
    with pytest.raises(ValidationError):
        ToxicityDataConfig(limit=0)


def test_a_scorer_tells_toxic_from_benign():
    profanity_check = pytest.importorskip("profanity_check")
    score = {
        kind: profanity_check.predict_prob([e.text for e in _all(kind)]) for kind in ("toxic", "benign", "neutral")
    }
    assert (score["toxic"] >= 0.5).mean() >= 0.95
    assert (score["benign"] <= 0.3).mean() >= 0.95
    assert (score["neutral"] <= 0.3).mean() >= 0.98


def test_no_sexual_words_and_no_slurs_of_groups():
    """The words are stored rotated by 13 letters, so that this file does not spell them out."""
    rotated = (
        "avttre|avttn|snttbg|snt|ergneq|ergneqrq|genaal|puvax|fcvp|xvxr|cnxv|plxr|qlxr|ovgpu|juber|fyhg|phag"
        "|encr|envcr|chffl|pbpx|qvpx|gvgf"
    )
    words = codecs.decode(rotated, "rot13")
    banned = re.compile(rf"\b({words})(s|es|ed)?\b", re.IGNORECASE)
    for kind in ("toxic", "benign", "neutral"):
        for example in _all(kind):
            assert not banned.search(example.prompt + example.text), example.prompt


def test_openings_vary():
    first = Counter(" ".join(e.prompt.split()[:2]).casefold() for e in _all("prompts"))
    assert first.most_common(1)[0][1] <= 6, first.most_common(3)


def test_the_fingerprint_follows_config_and_content(monkeypatch: pytest.MonkeyPatch):
    plain = fingerprint(ToxicityDataConfig())
    assert plain == fingerprint(ToxicityDataConfig())
    assert plain != fingerprint(ToxicityDataConfig(part="test"))
    assert plain != fingerprint(ToxicityDataConfig(kind="benign"))
    monkeypatch.setattr(data, "_source", lambda name: "{}")
    assert plain != fingerprint(ToxicityDataConfig())


def test_every_file_is_used():
    names = {path.name for path in (files(unlearn_suite_toxicity) / "data").iterdir()}
    assert names == {f"{name}.jsonl" for name in set(data._FILE.values())}
