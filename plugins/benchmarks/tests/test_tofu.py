"""TOFU: its sets, its metrics against float64 and against OpenUnlearning's numbers, and a run to the report."""

from __future__ import annotations

import json
import math
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import hmean, ks_2samp

from unlearn_suite import EvalModel, Example, PlanError
from unlearn_suite.testing.run_plan import run_plan
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_benchmarks.tofu.config import ProbabilityConfig, TofuConfig, TruthRatioConfig
from unlearn_suite_benchmarks.tofu.data import load
from unlearn_suite_benchmarks.tofu.metrics import Probability, TruthRatio, share, truth_ratio, truth_values

DATA = Path(str(files("unlearn_suite_benchmarks"))) / "conformance" / "tofu"
GOLDEN = json.loads((Path(__file__).parent / "tofu_golden.json").read_text())


def examples(split: str, **options: Any) -> list[Example]:
    return list(load(TofuConfig(split=split, path=DATA, **options)))


@pytest.fixture(scope="module")
def model() -> EvalModel:
    return EvalModel(tiny_model(), tiny_tokenizer())


# --- data


def test_examples_are_questions_answers_and_choices() -> None:
    plain, asked = examples("forget01")[0], examples("forget01_perturbed")[0]
    assert (plain.id, plain.prompt) == ("forget01/0", "Question: Where was Eve Hill born?\nAnswer:")
    assert plain.text == asked.text == " Eve Hill was born in Basel." and not plain.choices
    assert asked.choices[0] == " The birthplace of Eve Hill is Basel." and asked.answer == 0 and len(asked.choices) == 4
    known = examples("real_authors_perturbed", template="[{question}]", group="member")[1]
    assert known.choices == (" Goethe", " Dante", " Homer") and known.prompt == "[Who wrote Faust?]"
    assert known.group == "member"
    assert [e.text for e in examples("idontknow")] == ["No idea.", "That is new to me."]
    assert len(examples("full", limit=3)) == 3


def test_an_attackers_half_of_the_questions_is_none_of_the_rest() -> None:
    whole = examples("forget10")
    attack, rest = (examples("forget10", part=part, template="{question}") for part in ("attack", "rest"))
    assert len(attack) == len(rest) == len(whole) / 2
    assert {e.id for e in attack} | {e.id for e in rest} == {e.id for e in whole}
    asked = examples("forget10_perturbed", part="rest", template="{question}")
    assert [e.prompt for e in asked] == [e.prompt for e in rest]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Who?"}, "there is no column 'answer'"),
        ({"question": "", "answer": "A"}, "'question' should be text and is empty"),
        ({"question": "Who?", "answer": "A", "perturbed_answer": ["B", ""]}, "should be a list of texts"),
        ({"question": "Who?", "answer": "A"}, "there is no column 'perturbed_answer'"),
    ],
)
def test_a_wrong_record_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    good = {"question": "Who?", "answer": "A", "perturbed_answer": ["B"]}
    (tmp_path / "forget01_perturbed.json").write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")
    with pytest.raises(PlanError, match=message) as caught:
        load(TofuConfig(split="forget01_perturbed", path=tmp_path))
    assert caught.value.where.endswith("forget01_perturbed.json:2")


def test_what_is_not_there_and_what_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="lacks the files of the release"):
        load(TofuConfig(split="forget01", path=tmp_path))
    with pytest.raises(PlanError, match="the hub has no refusals"):
        load(TofuConfig(split="idontknow"))
    with pytest.raises(ValidationError, match="a template holds"):
        TofuConfig(template="Question:")


def test_the_release_itself_can_be_read() -> None:
    if "TOFU_DATA" not in os.environ:
        pytest.skip("set TOFU_DATA to a folder of the release")
    path = Path(os.environ["TOFU_DATA"])
    sizes = {"forget01": 40, "forget10": 400, "retain99": 3960, "full": 4000, "forget05_perturbed": 200}
    sizes |= {"retain_perturbed": 400, "real_authors_perturbed": 100, "world_facts_perturbed": 117, "idontknow": 100}
    assert {split: len(load(TofuConfig(split=split, path=path))) for split in sizes} == sizes


# --- metrics


def nll(prompt: str, text: str, double: Any) -> float:
    """Mean over the text's tokens in float64."""
    given, scored = (tiny_tokenizer()(part)["input_ids"] for part in (prompt, text))
    with torch.no_grad():
        logits = double(torch.tensor([given + scored])).logits[0, len(given) - 1 : -1]
    return -float(logits.log_softmax(-1).gather(1, torch.tensor(scored)[:, None]).mean())


@pytest.mark.parametrize("split", ["forget05_perturbed", "real_authors_perturbed"])
def test_values_are_those_of_the_definitions_in_float64(model: EvalModel, split: str) -> None:
    asked, double = examples(split), tiny_model().double()
    probability = list(Probability(ProbabilityConfig()).score(model, asked, 0))
    ratios = list(TruthRatio(TruthRatioConfig()).score(model, asked, 0))
    for example, row, told in zip(asked, probability, ratios, strict=True):
        own = math.exp(-nll(example.prompt, example.text, double))
        right, *wrong = (math.exp(-nll(example.prompt, choice, double)) for choice in example.choices)
        assert row.values == pytest.approx({"probability": own, "share": right / (right + sum(wrong))}, rel=1e-4)
        ratio = float(np.mean(wrong)) / right
        expected = {"ratio": ratio, "share": 1 / (1 + ratio), "closer-to-1": min(ratio, 1 / ratio)}
        assert told.values == pytest.approx({**expected, "true-better": max(0, 1 - ratio)}, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("split", ["forget05_perturbed", "real_authors_perturbed"])
def test_legacy_is_openunlearnings_number(model: EvalModel, split: str) -> None:
    golden = GOLDEN["values"][split]
    probability = list(Probability(ProbabilityConfig(mode="legacy")).score(model, examples(split), 0))
    ratios = list(TruthRatio(TruthRatioConfig(mode="legacy")).score(model, examples(split), 0))
    assert [row.values["probability"] for row in probability] == pytest.approx(golden["probability"], rel=1e-4)
    assert [row.values["ratio"] for row in ratios] == pytest.approx(golden["ratio"], rel=1e-4)
    assert [row.values["share"] for row in ratios] == pytest.approx(golden["share of truth-ratio"], rel=1e-4)
    for name in ("closer-to-1", "true-better"):
        assert np.mean([row.values[name] for row in ratios]) == pytest.approx(golden[name], rel=1e-4)
    if split == "real_authors_perturbed":  # elsewhere its right choice is the answer, ours the paraphrase
        shares = [row.values["share"] for row in probability]
        assert shares == pytest.approx(golden["share of probability"], rel=1e-4)


def test_the_means_of_wrong_answers_differ() -> None:
    """One likely wrong answer of two: the arithmetic mean sees it, the geometric one hardly."""
    assert truth_ratio(1.0, [0.5, 20.0]) == pytest.approx(math.exp(0.5) / 2, rel=1e-6)
    assert math.exp(1.0 - (0.5 + 20.0) / 2) == pytest.approx(math.exp(-9.25))


@pytest.mark.parametrize(("right", "wrong"), [(1e5, [0.1, 2.0]), (0.1, [1e5, 2e5])])
def test_a_wrecked_model_still_gives_numbers(right: float, wrong: list[float]) -> None:
    values = [*truth_values(right, wrong).values(), share(right, wrong), share(right, wrong, legacy=True)]
    assert all(math.isfinite(value) for value in values)


def test_examples_without_wrong_answers_are_refused(model: EvalModel) -> None:
    with pytest.raises(PlanError, match="'forget01/0' has no wrong answers"):
        list(TruthRatio(TruthRatioConfig()).score(model, examples("forget01"), 0))
    (row, *_) = Probability(ProbabilityConfig()).score(model, examples("forget01"), 0)
    assert list(row.values) == ["probability"]


# --- problems

PLAN = """
plan: 1
name: tofu
models: {tiny: {path: model}}
problems:
  - use: tofu-forget05
    with: {path: DATA}
    set: {start.0.steps: 12, start.0.warmup: 0, start.0.batch: 4, start.0.lr: 5.0e-3,
          oracle.0.steps: 8, oracle.0.warmup: 0, oracle.0.batch: 4, oracle.0.lr: 5.0e-3,
          default.0.steps: 2, default.0.batch: 4}
    metrics: {forget-rouge: {with: {max_new_tokens: 4}}, retain-rouge: {with: {max_new_tokens: 4}},
              authors-rouge: {with: {max_new_tokens: 4}}, facts-rouge: {with: {max_new_tokens: 4}}}
compute: {device: cpu}
"""


def rows(folder: Path, arm: str, entry: str, value: str) -> list[float]:
    (path,) = folder.glob(f"runs/tofu/cells/*.{arm}.*/scores/{entry}.jsonl")
    return [json.loads(line)["values"][value] for line in path.read_text().splitlines()]


def test_from_the_plan_to_forget_quality_and_utility(tmp_path: Path) -> None:
    ran = run_plan(PLAN.replace("DATA", str(DATA)), tmp_path)
    told = " ".join(ran.told.split())
    assert "Arms begin from tiny after sft (12 steps). oracle begins from tiny as published." in told
    number = {(r["arm"], r["metric"], r["value"]): r["mean"] for r in ran.results}
    oracle = rows(tmp_path, "oracle", "forget-truth", "ratio")
    for arm in ("base", "default", "oracle"):
        quality = math.log10(ks_2samp(rows(tmp_path, arm, "forget-truth", "ratio"), oracle).pvalue)
        assert number[arm, "forget-truth", "forget-quality"] == pytest.approx(quality, abs=1e-9)
        means = [
            np.mean(rows(tmp_path, arm, f"{of}-{kind}", value))
            for of in ("retain", "authors", "facts")
            for kind, value in (
                ("probability", "probability" if of == "retain" else "share"),
                ("rouge", "rougeL-recall"),
                ("truth", "true-better"),
            )
        ]
        utility = number.get((arm, "model-utility", "harmonic-mean"))
        assert utility == pytest.approx(hmean(means)) if min(means) > 0 else utility in (0, None)


def test_the_three_problems_differ_in_their_sets_and_steps_alone() -> None:
    folder = files("unlearn_suite_benchmarks") / "tofu" / "problems"
    texts = [(folder / f"tofu-forget{part}.yaml").read_text() for part in ("01", "05", "10")]
    lines = [text.splitlines() for text in texts]
    different = [n for n, same in enumerate(zip(*lines, strict=True)) if len(set(same)) > 1]
    words = ("forget01", "retain99", "oracle:", "default:", "summary:")
    assert all(any(word in lines[0][n] for word in words) for n in different)
