"""The `rouge` metric against rouge-score and by hand."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from rouge_score.rouge_scorer import RougeScorer

from unlearn_suite import Example, PlanError
from unlearn_suite.builtin.metrics.rouge import Rouge, RougeConfig, rouge_values
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

EXAMPLES = [Example("a", prompt="Who wrote it", text="She wrote a bad e"), Example("b", prompt="And then", text="n a")]


def test_values_worked_out_by_hand() -> None:
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    # common in order: "the author", "book" (stems of authors and books); in any order "write" too
    values = rouge_values(scorer, "The author writes books", "writing books: the authors book")
    assert values["rouge1-recall"] == 1.0
    assert values["rougeL-recall"] == 3 / 4
    assert values["rougeL-f1"] == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5))
    assert set(rouge_values(scorer, "The author", "").values()) == {0.0}


def test_it_scores_the_greedy_continuation_of_the_filled_template() -> None:
    model = EvalModel(tiny_model(), tiny_tokenizer())
    config = RougeConfig(max_new_tokens=11, template="Q: {prompt}\nA:", stop=("e",))
    rows = list(Rouge(config).score(model, EXAMPLES, 0))
    prompts = [f"Q: {e.prompt}\nA:" for e in EXAMPLES]
    told = model.generate(prompts, max_new_tokens=11, temperature=0, stop=("e",))
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    for example, row, prompt, (output,) in zip(EXAMPLES, rows, prompts, told, strict=True):
        assert row.sample == {"prompt": prompt, "output": output, "answer": example.text}
        want = scorer.score(example.text, output)["rougeL"]
        assert (row.values["rougeL-recall"], row.values["rougeL-f1"]) == (want.recall, want.fmeasure)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"a template holds \{prompt\}"):
        RougeConfig(template="Question:")
    with pytest.raises(PlanError, match="'e' has no text"):
        list(Rouge(RougeConfig()).score(EvalModel(tiny_model(), tiny_tokenizer()), [Example("e", prompt="x")], 0))
