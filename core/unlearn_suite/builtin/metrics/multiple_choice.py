"""Multiple choice by log-likelihood, the way lm-evaluation-harness scores it."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from ...errors import PlanError
from ...evaluate.metric import Metric, Row
from ...specs import Config, Example, MetricSpec, ValueSpec
from .cloze import join

if TYPE_CHECKING:
    from ...evaluate.model import EvalModel


class MultipleChoiceConfig(Config):
    """Options of `multiple-choice`."""

    template: Literal["plain", "letters"] = "plain"
    """plain: the choices continue the prompt; letters: an exam form, one line "A. ..." per choice and "Answer:",
    which the letters continue"""
    separator: str = " "
    """put between prompt and choice where neither brings white space of its own"""
    description: str = ""
    """text in front of every prompt"""


class MultipleChoice(Metric[MultipleChoiceConfig]):
    """Scores every choice as the continuation of the prompt. Ties go to the first choice."""

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        items = [self._item(example) for example in examples]
        pairs = [(context, join(context, c, self.config.separator)) for context, choices in items for c in choices]
        scores = iter(model.logprobs(pairs))
        for example, (context, choices) in zip(examples, items, strict=True):
            totals = [next(scores).total for _ in choices]
            yield Row(
                example.id,
                choice_values(totals, [len(c) for c in choices], _answer(example)),
                group=example.group,
                unit=example.unit or example.id,
                sample={
                    "prompt": context,
                    "chosen": example.choices[_argmax(totals)],
                    "answer": example.choices[_answer(example)],
                },
            )

    def _item(self, example: Example) -> tuple[str, Sequence[str]]:
        _answer(example)
        prompt = self.config.description + example.prompt
        if self.config.template == "plain":
            return prompt, example.choices
        letters = string.ascii_uppercase[: len(example.choices)]
        if len(letters) < len(example.choices):
            raise PlanError(f"example {example.id!r} has more choices than there are letters", code="choices")
        lines = [f"{letter}. {choice}" for letter, choice in zip(letters, example.choices, strict=True)]
        question = self.config.description + example.prompt.strip()
        return "\n".join([question, *lines, "Answer:"]), list(letters)


def choice_values(totals: Sequence[float], lengths: Sequence[int], answer: int) -> dict[str, float]:
    """The metric's values from summed log-probabilities and lengths in characters of the choices."""
    normalised = [total / length for total, length in zip(totals, lengths, strict=True)]
    top = max(totals)
    mass = sum(math.exp(total - top) for total in totals)
    return {
        "accuracy": float(_argmax(totals) == answer),
        "accuracy-normalised": float(_argmax(normalised) == answer),
        "p-correct": math.exp(totals[answer] - top) / mass,
        "chance": 1.0 / len(totals),
    }


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _answer(example: Example) -> int:
    """Index of the right choice; raises `PlanError` unless the example is a multiple-choice item."""
    if len(example.choices) < 2 or example.answer is None or not 0 <= example.answer < len(example.choices):
        raise PlanError(
            f"example {example.id!r} is no multiple-choice item",
            code="no-choices",
            hint="give it two or more `choices` and the index of the right one as `answer`",
        )
    if not all(example.choices):
        raise PlanError(f"example {example.id!r} has an empty choice", code="empty-choice", hint="remove it")
    return example.answer


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
    },
)
