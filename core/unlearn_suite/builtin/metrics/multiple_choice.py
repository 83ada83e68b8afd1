"""Multiple choice by log-likelihood, the way lm-evaluation-harness scores it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...evaluate.examples import join
from ...evaluate.metric import Metric, Row
from ...specs import Config, Example, MetricSpec, ValueSpec
from .exam import Template, answer_index, argmax, exam_item

if TYPE_CHECKING:
    from ...evaluate.model import EvalModel


class MultipleChoiceConfig(Config):
    """Options of `multiple-choice`."""

    template: Template = "plain"
    """plain: the choices continue the prompt; cloze: they continue "Question: ..." and "Answer:"; letters, parentheses
    and numbers: an exam form, one line "A. ...", "(A) ..." or "1. ..." per choice and "Answer:", which the labels
    continue"""
    separator: str = " "
    """put between prompt and choice where neither brings white space of its own"""
    description: str = ""
    """text in front of every prompt; {group} stands for the example's group"""


class MultipleChoice(Metric[MultipleChoiceConfig]):
    """Scores every choice c as the continuation of the prompt x. Ties go to the first choice.

        s_c = sum_t log p(c_t | x, c_<t);  accuracy = [argmax_c s_c is right]
        accuracy-normalised = [argmax_c s_c / characters of c is right];  above-chance = accuracy - 1 / choices
        p-correct = exp(s_right) / sum_c exp(s_c), at temperature 1

    Source: lm-evaluation-harness (`acc`, `acc_norm`); p-correct as in github.com/filyp/MUDMAN.
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        config = self.config
        items = [exam_item(example, config.template, config.description) for example in examples]
        pairs = [(context, join(context, c, config.separator)) for context, choices in items for c in choices]
        scores = iter(model.logprobs(pairs))
        for example, (context, choices) in zip(examples, items, strict=True):
            totals = [next(scores).total for _ in choices]
            yield Row(
                example.id,
                choice_values(totals, [len(c) for c in choices], answer_index(example)),
                group=example.group,
                unit=example.unit or example.id,
                sample={
                    "prompt": context,
                    "chosen": example.choices[argmax(totals)],
                    "answer": example.choices[answer_index(example)],
                },
            )


def choice_values(totals: Sequence[float], lengths: Sequence[int], answer: int) -> dict[str, float]:
    """The metric's values from summed log-probabilities and lengths in characters of the choices."""
    normalised = [total / length for total, length in zip(totals, lengths, strict=True)]
    top = max(totals)
    mass = sum(math.exp(total - top) for total in totals)
    return {
        "accuracy": float(argmax(totals) == answer),
        "accuracy-normalised": float(argmax(normalised) == answer),
        "p-correct": math.exp(totals[answer] - top) / mass,
        "chance": 1.0 / len(totals),
        "above-chance": float(argmax(totals) == answer) - 1.0 / len(totals),
    }


SPEC = MetricSpec(
    name="multiple-choice",
    summary="accuracy over given choices by their log-likelihood",
    load="unlearn_suite.builtin.metrics.multiple_choice:MultipleChoice",
    config=MultipleChoiceConfig,
    by_example=True,
    values={
        "accuracy": ValueSpec(
            "the right choice has the largest summed log-likelihood (lm-eval: acc)",
            better="higher",
            lowest=0,
            highest=1,
        ),
        "accuracy-normalised": ValueSpec(
            "the same with log-likelihoods divided by the choices' characters (lm-eval: acc_norm)",
            better="higher",
            lowest=0,
            highest=1,
        ),
        "p-correct": ValueSpec(
            "share of the right choice in the probability of all choices",
            better="higher",
            lowest=0,
            highest=1,
        ),
        "chance": ValueSpec("accuracy of guessing: one over the number of choices", lowest=0, highest=1),
        "above-chance": ValueSpec(
            "accuracy minus that of guessing; far below 0 the model knows the answers as well, and avoids them",
            lowest=-1,
            highest=1,
        ),
    },
)
