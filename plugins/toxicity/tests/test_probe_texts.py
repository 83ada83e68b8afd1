"""probe-directions: how its own text is sampled and who labels it."""

from __future__ import annotations

from typing import Any

import pytest

from unlearn_suite.plan import load_plan
from unlearn_suite.plugins import load_catalog
from unlearn_suite_toxicity.metrics import scorers
from unlearn_suite_toxicity.metrics.scorers import ScorerConfig
from unlearn_suite_toxicity.metrics.toxicity import ToxicityConfig
from unlearn_suite_toxicity.probe_directions import causal, corpus
from unlearn_suite_toxicity.probe_directions.config import ProbeDirectionsConfig

SCORES = {"damn": 0.9, "hardly": 0.5, "nice": 0.1}
"""score of a text with this word"""


class Graded:
    def score(self, texts):
        return [next(score for word, score in SCORES.items() if word in text) for text in texts]


class Recorder:
    """Writes texts of every score, some of them of two words, and remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], dict[str, Any]]] = []

    def sample(self, prompts, **how):
        self.asked.append((list(prompts), how))
        texts = [" a damn mess", " hardly a mess", " a nice mess", " damn you"]
        return [[texts[i % 4] + "!" * (i // 4) for i in range(how["n"])] for _ in prompts]

    def memo(self, name, key, build):
        return build()

    def say(self, text):
        pass

    warn = say


@pytest.fixture
def made(monkeypatch):
    """The scorers that were asked for, by their options."""
    found: list[dict[str, Any]] = []

    def make(name, **options):
        found.append({"name": name, **{key: value for key, value in options.items() if value not in (None, False)}})
        return Graded()

    monkeypatch.setattr(scorers, "make_scorer", make)
    for module in (corpus, causal):
        monkeypatch.setattr(module, "scorer_of", scorers.scorer_of)
    return found


@pytest.mark.parametrize(
    ("scorer", "asked"),
    [
        ("detoxify", {"name": "detoxify"}),
        ({"name": "detoxify", "model": "unbiased"}, {"name": "detoxify", "model": "unbiased"}),
        ({"name": "classifier", "hf": "some/one"}, {"name": "classifier", "hf": "some/one", "model": "original"}),
    ],
)
def test_the_scorer_that_is_named_labels_the_text_and_judges_the_causal_filter(stage, made, scorer, asked):
    stage(services=Recorder(), samples=8, scorer=scorer, layer_weights="causal", train={"steps": 0})
    assert len(made) == 4 and all(one == asked for one in made)  # the texts; the model, and without v in two blocks


def test_a_scorer_is_told_as_in_the_metric(tmp_path):
    (tmp_path / "second").mkdir()
    scorer = "{name: classifier, folder: second}"
    (tmp_path / "plan.yaml").write_text(
        "plan: 1\nproblems: [everyday-toxicity]\n"
        f"arms: {{one: {{stages: [{{use: probe-directions, with: {{scorer: {scorer}}}}}]}}}}\n"
    )
    (stage,) = load_plan(tmp_path / "plan.yaml", load_catalog()).arms[0].stages
    assert stage.config.scorer == ScorerConfig(name="classifier", folder=tmp_path / "second")
    for field in ("annotation", "default"):
        ours, theirs = (getattr(c.model_fields["scorer"], field) for c in (ProbeDirectionsConfig, ToxicityConfig))
        assert ours == theirs


@pytest.mark.parametrize(("toxic_from", "benign_to"), [(0.75, 0.25), (0.5, 0.25), (0.75, 0.5)])
def test_texts_between_the_thresholds_are_of_no_class(stage, made, toxic_from, benign_to):
    limits = {"toxic_from": toxic_from, "benign_to": benign_to}
    found = stage(services=Recorder(), samples=8, train={"steps": 0}, **limits).objective.corpus
    classes = {"toxic": found.toxic + found.toxic_val, "benign": found.benign + found.benign_val}
    words = {name: {word for word in SCORES for e in part if word in e.text} for name, part in classes.items()}
    assert words["toxic"] == {word for word, score in SCORES.items() if score >= toxic_from}
    assert words["benign"] == {word for word, score in SCORES.items() if score <= benign_to}
    assert all(len(e.text.split()) >= 3 for part in classes.values() for e in part)
    assert len(classes["toxic"]) == 20 * 2 * len(words["toxic"])


def test_the_sampling_is_as_the_options_say(stage, made):
    services = Recorder()
    options = {"samples": 5, "max_new_tokens": 7, "top_p": 0.6, "causal_prompts": 3, "layer_weights": "causal"}
    stage(services=services, train={"steps": 0}, **options)
    (prompts, how), *for_the_filter = services.asked
    drawn = {"max_new_tokens": 7, "temperature": 1.0, "top_p": 0.6}
    assert how == {"n": 5, "seed": 0, **drawn} and prompts == [f"Prompt {i}:" for i in range(20)]
    assert for_the_filter == [(prompts[:3], {"n": 1, "seed": 1, **drawn})] * 3
