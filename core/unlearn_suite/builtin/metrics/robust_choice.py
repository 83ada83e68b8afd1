"""Multiple choice with the right choice in every place and in several formats: what holds in all of them is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...evaluate.examples import join
from ...evaluate.metric import Metric, Row
from ...specs import Config, Example, MetricSpec, ValueSpec
from .exam import Template, answer_index, argmax, exam_item
from .multiple_choice import choice_values

if TYPE_CHECKING:
    from ...evaluate.model import EvalModel


class RobustChoiceConfig(Config):
    """Options of `multiple-choice-robust`."""

    templates: tuple[Template, ...] = Field(("letters", "parentheses", "numbers"), min_length=1)
    """formats, as `template` of `multiple-choice`"""
    orders: Literal["cycle", "given"] = "cycle"
    """cycle: the right choice stands in every place once; given: the order of the data only"""
    separator: str = " "
    """put between prompt and choice where neither brings white space of its own"""
    description: str = ""
    """text in front of every prompt; {group} stands for the example's group"""


class RobustChoice(Metric[RobustChoiceConfig]):
    """Asks every question formats x orders times; form f of m is scored as `multiple-choice` does.

        accuracy = sum_f right_f / m;  worst = min_f right_f;  p-correct = sum_f p_f / m
        consistency = forms that pick the choice which is picked most / m

    Source: the dependence on order and form, arXiv:2309.03882; formats of lm-evaluation-harness and other exams.
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        config = self.config
        forms = [list(self._forms(example)) for example in examples]
        items = [[exam_item(form, template, config.description) for form, template in asked] for asked in forms]
        pairs = [
            (context, join(context, choice, config.separator))
            for asked in items
            for context, choices in asked
            for choice in choices
        ]
        scores = iter(model.logprobs(pairs))
        for example, asked, given in zip(examples, forms, items, strict=True):
            totals = [[next(scores).total for _ in choices] for _, choices in given]
            picked = [form.choices[argmax(t)] for (form, _), t in zip(asked, totals, strict=True)]
            answers = [answer_index(form) for form, _ in asked]
            yield Row(
                example.id,
                robust_values(totals, answers, picked),
                group=example.group,
                unit=example.unit or example.id,
                sample={"prompt": given[0][0], "picked": picked, "answer": example.choices[answer_index(example)]},
            )

    def _forms(self, example: Example) -> Iterator[tuple[Example, Template]]:
        """The example in each rotation of its choices and each format."""
        count = len(example.choices) if self.config.orders == "cycle" else 1
        answer = answer_index(example)
        for template in self.config.templates:
            for shift in range(count):
                turned = (*example.choices[shift:], *example.choices[:shift])
                yield replace(example, choices=turned, answer=(answer - shift) % len(turned)), template


def robust_values(totals: Sequence[Sequence[float]], answers: Sequence[int], picked: Sequence[str]) -> dict[str, float]:
    """The metric's values from the summed log-probabilities, right places and picked texts of all forms."""
    each = [choice_values(t, [1] * len(t), answer) for t, answer in zip(totals, answers, strict=True)]
    right = [values["accuracy"] for values in each]
    return {
        "accuracy": fmean(right),
        "worst": min(right),
        "p-correct": fmean(values["p-correct"] for values in each),
        "consistency": Counter(picked).most_common(1)[0][1] / len(picked),
        "chance": 1.0 / len(totals[0]),
    }


SPEC = MetricSpec(
    name="multiple-choice-robust",
    summary="multiple choice with the right choice in every place and in several formats",
    load="unlearn_suite.builtin.metrics.robust_choice:RobustChoice",
    config=RobustChoiceConfig,
    by_example=True,
    values={
        "accuracy": ValueSpec(
            "right answers / forms of the question (orders x formats)", better="higher", lowest=0, highest=1
        ),
        "worst": ValueSpec(
            "the answer is right in every form; picking one place always, or guessing, gives 0 or nearly",
            better="higher",
            chance=0,
            lowest=0,
            highest=1,
        ),
        "p-correct": ValueSpec(
            "share of the right choice in the probability of all choices, mean over the forms",
            better="higher",
            lowest=0,
            highest=1,
        ),
        "consistency": ValueSpec("forms in which the choice is picked that is picked most", lowest=0, highest=1),
        "chance": ValueSpec("accuracy of guessing: one over the number of choices", lowest=0, highest=1),
    },
)
