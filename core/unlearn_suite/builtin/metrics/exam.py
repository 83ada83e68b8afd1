"""Multiple-choice items as a model is given them: a context, and the continuations whose probabilities count."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Literal

from ...errors import PlanError
from ...specs import Example

Template = Literal["plain", "cloze", "letters", "parentheses", "numbers"]
"""plain: the choices continue the prompt; cloze: they continue "Question: ..." and "Answer:"; letters, parentheses and
numbers: an exam form, one line "A. ...", "(A) ..." or "1. ..." per choice and "Answer:", which the labels continue"""


def exam_item(example: Example, template: Template, description: str = "") -> tuple[str, Sequence[str]]:
    """Context and continuations of an example. `{group}` in the description stands for the example's group, with
    spaces for underscores. Raises `PlanError` for what is no multiple-choice item."""
    answer_index(example)
    head = description.replace("{group}", example.group.replace("_", " "))
    if template == "plain":
        return head + example.prompt, example.choices
    if template == "cloze":
        return f"{head}Question: {example.prompt.strip()}\nAnswer:", example.choices
    labels = _labels(example, template)
    mark = "" if template == "parentheses" else "."
    lines = [f"{label}{mark} {choice}" for label, choice in zip(labels, example.choices, strict=True)]
    return "\n".join([head + example.prompt.strip(), *lines, "Answer:"]), labels


def _labels(example: Example, template: Template) -> list[str]:
    if template == "numbers":
        return [str(number + 1) for number in range(len(example.choices))]
    letters = string.ascii_uppercase[: len(example.choices)]
    if len(letters) < len(example.choices):
        raise PlanError(f"example {example.id!r} has more choices than there are letters", code="choices")
    return [f"({letter})" for letter in letters] if template == "parentheses" else list(letters)


def answer_index(example: Example) -> int:
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


def argmax(values: Sequence[float]) -> int:
    """Place of the largest value; the first of equal ones."""
    return max(range(len(values)), key=values.__getitem__)
