"""Examples as metrics read them: the text, how it joins its prompt, and the scores of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import PlanError
from ..specs import Example

if TYPE_CHECKING:
    from .model import EvalModel
    from .scorer import TokenScores


def answer_of(example: Example) -> str:
    """The text of an example; raises `PlanError` where it has none."""
    if not example.text.strip():
        raise PlanError(
            f"example {example.id!r} has no text to score",
            code="no-answer",
            hint="give cloze examples a `prompt` and the answer as `text`",
        )
    return example.text


def join(prompt: str, answer: str, separator: str) -> str:
    """The answer as it continues the prompt."""
    touching = prompt and not prompt[-1].isspace() and not answer[0].isspace()
    return separator + answer if touching else answer


def token_scores(
    model: EvalModel,
    examples: Sequence[Example],
    *,
    separator: str = " ",
    max_tokens: int | None = None,
    moments: bool = False,
) -> list[TokenScores]:
    """Scores of every token of each example's `text`: after its `prompt`, or, without one, as running text.

    One per example, in their order. `separator` is put between prompt and text where neither brings white space of its
    own; `max_tokens` cuts running text; `moments` as in `EvalModel.logprobs`. Running text without tokens gives empty
    scores; a text after a prompt must not be blank (`PlanError`, `no-answer`). Otherwise raises as `EvalModel.logprobs`
    and `EvalModel.rolling`.
    """
    plain = [i for i, e in enumerate(examples) if not e.prompt]
    prompted = [i for i, e in enumerate(examples) if e.prompt]
    pairs = [(examples[i].prompt, join(examples[i].prompt, answer_of(examples[i]), separator)) for i in prompted]
    texts = [examples[i].text for i in plain]
    found = dict(zip(plain, model.rolling(texts, max_tokens=max_tokens, moments=moments), strict=True))
    found.update(zip(prompted, model.logprobs(pairs, moments=moments), strict=True))
    return [found[i] for i in range(len(examples))]
