"""A four-choice question of a published exam, as a choice, as a statement to train on, or as a cloze item.

Exams have no corpora of their own, so what is forgotten is made of questions with their right answers, and what is
measured are other questions: a split by the hash of the question. A question that stands in an exam twice is on one
side of the split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from unlearn_suite import Example, records

Form = Literal["choice", "statement", "cloze"]
Part = Literal["all", "train", "held-out"]

_VERSION = "exam split 1"
_TRAIN = 0.5


@dataclass(frozen=True)
class Question:
    """One question; `answer` counts from 0."""

    id: str
    text: str
    choices: tuple[str, ...]
    answer: int
    group: str

    def example(self, form: Form) -> Example:
        """The question in one form."""
        right = self.choices[self.answer]
        if form == "choice":
            return Example(
                self.id, text=right, prompt=self.text, choices=self.choices, answer=self.answer, group=self.group
            )
        prompt = f"Question: {self.text.strip()}\nAnswer:"
        if form == "statement":
            return Example(self.id, text=f"{prompt} {right.strip()}", group=self.group)
        return Example(self.id, text=f" {right.strip()}", prompt=prompt, group=self.group)

    @property
    def trains(self) -> bool:
        """Whether it is in the half that is trained on."""
        return records.share(_VERSION, " ".join(self.text.split()).casefold()) < _TRAIN


def question_of(record: records.Record, identity: str, group: str) -> Question:
    """A record with `question`, `choices` and `answer`. Raises `PlanError` at its place."""
    choices = record.get("choices")
    if hasattr(choices, "tolist"):
        choices = choices.tolist()
    if not isinstance(choices, list | tuple) or len(choices) < 2:
        raise record.fault("`choices` should be a list of two or more texts")
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise record.fault("one of its choices is no text")
    answer = answer_of(record, record.get("answer"), len(choices))
    return Question(identity, record.text("question"), tuple(choices), answer, group)


def answer_of(record: records.Record, value: Any, count: int) -> int:
    """An index from 0, or a letter. Raises `PlanError` for anything else."""
    word = str(value).strip().upper()
    index = int(word) if word.isdecimal() else ord(word) - ord("A") if len(word) == 1 and word.isascii() else -1
    if isinstance(value, bool) or not 0 <= index < count:
        raise record.fault(f"the answer {value!r} is none of its {count} choices", "count from 0, or give the letter")
    return index


def taken(question: Question, part: Part) -> bool:
    """Whether a question belongs to a part."""
    return part == "all" or question.trains == (part == "train")
