"""cloze, multiple-choice and perplexity against values worked out by hand from the model's logits."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from unlearn_suite import Example, PlanError, SuiteError
from unlearn_suite.builtin.metrics.cloze import Cloze, ClozeConfig
from unlearn_suite.builtin.metrics.exam import exam_item
from unlearn_suite.builtin.metrics.multiple_choice import MultipleChoice, MultipleChoiceConfig, choice_values
from unlearn_suite.builtin.metrics.pairs import Pairs, PairsConfig
from unlearn_suite.builtin.metrics.perplexity import Perplexity, PerplexityConfig
from unlearn_suite.builtin.metrics.robust_choice import RobustChoice, RobustChoiceConfig, robust_values
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def model() -> EvalModel:
    return EvalModel(tiny_model(), tiny_tokenizer())


def loglikelihood(model: EvalModel, context: str, continuation: str) -> float:
    """Summed log-probability in float64, one forward pass."""
    return sum(all_logprobs(model, model.tokenizer.encode(context), model.tokenizer.encode(continuation)))


def all_logprobs(model: EvalModel, context: Sequence[int], continuation: Sequence[int]) -> list[float]:
    exact: Any = copy.deepcopy(model.hf).double()
    with torch.no_grad():
        logits = exact(input_ids=torch.tensor([[*context, *continuation]])).logits[0]
    picked = logits.log_softmax(dim=-1)[len(context) - 1 : -1]
    return [float(picked[i, token]) for i, token in enumerate(continuation)]


def greedy(model: EvalModel, prompt: str, count: int) -> str:
    return model.generate([prompt], max_new_tokens=count, temperature=0)[0][0]


def test_cloze_by_hand(model: EvalModel) -> None:
    told = greedy(model, "The capital of France is ", 4)
    examples = [
        Example("wrong", prompt="The capital of France is", text="Paris", group="capitals"),
        Example("told", prompt="The capital of France is ", text=told, unit="fact"),
        Example("spaced", prompt="The capital of France is", text=" Paris"),
    ]
    wrong, right, spaced = Cloze(ClozeConfig()).score(model, examples, 0)
    total = loglikelihood(model, "The capital of France is", " Paris")
    assert wrong.values["nll"] == pytest.approx(-total / 6, abs=1e-5)
    assert wrong.values["p"] == pytest.approx(math.exp(total), rel=1e-4)
    assert wrong.values["exact"] == 0.0 and wrong.values["hit"] < 1.0
    assert wrong.values == spaced.values
    assert (wrong.group, wrong.unit, right.unit) == ("capitals", "wrong", "fact")
    assert wrong.sample == {"prompt": "The capital of France is", "answer": "Paris"}


def test_cloze_is_exact_for_what_greedy_decoding_says(model: EvalModel) -> None:
    prompt = "The capital of France is"
    told = greedy(model, prompt, 6)
    config = ClozeConfig(separator="")
    right, wrong = Cloze(config).score(
        model, [Example("a", prompt=prompt, text=told), Example("b", prompt=prompt, text=told[:-1] + "~")], 0
    )
    assert right.values["exact"] == right.values["hit"] == 1.0
    assert wrong.values["exact"] == 0.0
    assert wrong.values["hit"] == pytest.approx(5 / 6)


def test_cloze_without_an_answer_is_refused(model: EvalModel) -> None:
    with pytest.raises(PlanError, match="'empty' has no text"):
        list(Cloze(ClozeConfig()).score(model, [Example("empty", prompt="p")], 0))


def test_choice_values_by_hand() -> None:
    # probabilities 0.5, 0.25, 0.125; lengths make the second one win per character
    totals = [math.log(0.5), math.log(0.25), math.log(0.125)]
    values = choice_values(totals, [1, 4, 2], answer=1)
    assert values["accuracy"] == 0.0
    assert values["accuracy-normalised"] == 1.0
    assert values["p-correct"] == pytest.approx(0.25 / 0.875)
    assert values["chance"] == pytest.approx(1 / 3)
    assert choice_values(totals, [1, 4, 2], answer=0)["accuracy"] == 1.0
    assert choice_values([-1e4, -1e4 - 1], [1, 1], answer=0)["p-correct"] == pytest.approx(1 / (1 + math.exp(-1)))


@pytest.mark.parametrize("template", ["plain", "letters"])
def test_multiple_choice_by_hand(template: str, model: EvalModel) -> None:
    example = Example("q", prompt="The sky is", choices=("green", "blue", "made of cheese"), answer=1, group="sky")
    config = MultipleChoiceConfig.model_validate({"template": template, "description": "Answer this.\n\n"})
    (row,) = MultipleChoice(config).score(model, [example], 0)
    if template == "plain":
        context, continuations = "Answer this.\n\nThe sky is", [" green", " blue", " made of cheese"]
        lengths = [5, 4, 14]
    else:
        context = "Answer this.\n\nThe sky is\nA. green\nB. blue\nC. made of cheese\nAnswer:"
        continuations, lengths = [" A", " B", " C"], [1, 1, 1]
    totals = [loglikelihood(model, context, c) for c in continuations]
    assert row.values == pytest.approx(choice_values(totals, lengths, 1), abs=1e-4)
    assert row.sample["prompt"] == context
    assert row.sample["chosen"] == example.choices[totals.index(max(totals))]


@pytest.mark.parametrize(
    "example",
    [
        Example("x", prompt="p", text="t"),
        Example("x", prompt="p", choices=("a", "b")),
        Example("x", prompt="p", choices=("a", "b"), answer=2),
        Example("x", prompt="p", choices=("a", ""), answer=0),
        Example("x", prompt="p", choices=("a",), answer=0),
    ],
)
def test_what_is_no_multiple_choice_item_is_refused(example: Example, model: EvalModel) -> None:
    with pytest.raises(PlanError, match="example 'x'"):
        list(MultipleChoice(MultipleChoiceConfig()).score(model, [example], 0))


def test_perplexity_by_hand(model: EvalModel) -> None:
    examples = [
        Example("long", text="It is raining in the mountains."),
        Example("short", text="Yes"),
        Example("none"),
    ]
    rows = list(Perplexity(PerplexityConfig()).score(model, examples, 0))
    totals = [sum(all_logprobs(model, [1], model.tokenizer.encode(e.text))) for e in examples[:2]]
    assert [r.weight for r in rows] == [31.0, 3.0, 0.0]
    nll = sum(r.weight * r.values["perplexity"] for r in rows) / sum(r.weight for r in rows)
    assert math.exp(nll) == pytest.approx(math.exp(-sum(totals) / 34), rel=1e-4)


def test_perplexity_of_text_after_a_prompt_and_of_cut_text(model: EvalModel) -> None:
    examples = [Example("a", prompt="Good", text="morning"), Example("b", text="Good morning")]
    after, cut = Perplexity(PerplexityConfig(max_tokens=5)).score(model, examples, 0)
    assert after.weight == 8.0
    assert after.values["nll"] == pytest.approx(-loglikelihood(model, "Good", " morning") / 8, abs=1e-5)
    by_hand = all_logprobs(model, [1], model.tokenizer.encode("Good "))
    assert cut.weight == 5.0 and cut.values["nll"] == pytest.approx(-sum(by_hand) / 5, abs=1e-5)


def test_a_prompt_without_text_is_refused(model: EvalModel) -> None:
    with pytest.raises(SuiteError, match="no text"):
        list(Perplexity(PerplexityConfig()).score(model, [Example("a", prompt="p")], 0))


def exam(answer: int = 2) -> Example:
    return Example(
        "q", prompt=" What is it? ", choices=("a thing", "some work", "none", "all"), answer=answer, group="a_b"
    )


def test_the_forms_of_an_exam() -> None:
    assert exam_item(exam(), "letters", "About {group}.\n\n") == (
        "About a b.\n\nWhat is it?\nA. a thing\nB. some work\nC. none\nD. all\nAnswer:",
        ["A", "B", "C", "D"],
    )
    assert exam_item(exam(), "parentheses")[0].endswith("\n(D) all\nAnswer:")
    assert exam_item(exam(), "parentheses")[1] == ["(A)", "(B)", "(C)", "(D)"]
    assert exam_item(exam(), "numbers")[0].splitlines()[1] == "1. a thing"
    assert exam_item(exam(), "cloze") == ("Question: What is it?\nAnswer:", exam().choices)
    assert exam_item(exam(), "plain")[0] == " What is it? "


def test_robust_choice_is_multiple_choice_in_every_form(model: EvalModel) -> None:
    config = RobustChoiceConfig(templates=("letters", "numbers"))
    (row,) = RobustChoice(config).score(model, [exam()], 0)
    right, shares, picks = [], [], []
    for template in ("letters", "numbers"):
        labels = "ABCD" if template == "letters" else "1234"
        for shift in range(4):
            order = [(shift + place) % 4 for place in range(4)]
            lines = "".join(f"\n{labels[k]}. {exam().choices[i]}" for k, i in enumerate(order))
            prompt = f"What is it?{lines}\nAnswer:"
            scores = [loglikelihood(model, prompt, f" {label}") for label in labels]
            best = order[scores.index(max(scores))]
            picks.append(best)
            right.append(best == 2)
            shares.append(math.exp(scores[order.index(2)]) / sum(map(math.exp, scores)))
    assert row.values["accuracy"] == pytest.approx(sum(right) / 8)
    assert row.values["worst"] == float(all(right))
    assert row.values["p-correct"] == pytest.approx(sum(shares) / 8, rel=1e-4)
    assert row.values["consistency"] == pytest.approx(max(map(picks.count, picks)) / 8)


def test_robust_values_count_texts_not_places() -> None:
    totals = [[0.0, -1.0], [-1.0, 0.0], [0.0, -1.0]]
    values = robust_values(totals, [0, 1, 1], ["x", "x", "y"])
    assert (values["accuracy"], values["worst"], values["consistency"]) == pytest.approx((2 / 3, 0.0, 2 / 3))
    assert robust_values(totals[:2], [0, 1], ["x", "x"])["worst"] == 1.0


def test_pairs_by_hand(model: EvalModel) -> None:
    example = Example("p", choices=("The river runs", "The sea"), group="g")
    (row,) = Pairs(PairsConfig()).score(model, [example], 0)
    start = [model.tokenizer.bos_token_id]
    totals = [sum(all_logprobs(model, start, model.tokenizer.encode(text))) for text in example.choices]
    assert row.values["gap"] == pytest.approx(totals[0] - totals[1], abs=1e-4)
    assert row.values["difference"] == pytest.approx(abs(totals[0] - totals[1]), abs=1e-4)
    assert row.values["first"] == float(totals[0] > totals[1])
    with pytest.raises(PlanError, match="no pair"):
        list(Pairs(PairsConfig()).score(model, [exam()], 0))
