"""Forget examples with an alternate answer each, and the batches that stand beside forget batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from unlearn_suite import Batch, Example, PlanError, StageContext, TrainingError

Pair = tuple[Example, Example]
"""(unwanted, wanted): two answers to one prompt"""


class Pairs:
    """Sets the role "forget" to the unwanted halves; `partner` gives the wanted halves of a forget batch.

    `make` returns the pairs of one forget example (none: it is left out). Raises `TrainingError` when no pair is left.
    """

    def __init__(self, ctx: StageContext, make: Callable[[Example], Sequence[Pair]]) -> None:
        self._ctx = ctx
        self._wanted: dict[str, Example] = {}
        kept = []
        for encoded in ctx.roles["forget"].encoded:
            for n, (unwanted, wanted) in enumerate(make(encoded.example)):
                if _encodable(ctx, unwanted) and _encodable(ctx, wanted):
                    named = replace(unwanted, id=f"{encoded.example.id}#{n}")
                    kept.append(named)
                    self._wanted[named.id] = wanted
        if not kept:
            raise TrainingError(
                "no forget example has an alternate answer",
                code="no-pairs",
                hint="give the role `alternate` (or `retain`) examples with the same unit and prompt, or use idk-dpo",
            )
        ctx.set_role("forget", kept)

    def partner(self, batch: Batch) -> Batch:
        """The wanted halves of a (micro-)batch of forget examples, row by row."""
        examples = [self._wanted[example.id] for example in batch.examples]
        (made,) = self._ctx.encode("alternate", examples).chunks(len(examples))
        return made.to(batch.input_ids.device)


def _encodable(ctx: StageContext, example: Example) -> bool:
    """Whether the example has the two tokens that the engine asks for, and an answer among them."""
    try:
        (encoded,) = ctx.encode("alternate", [example]).encoded
    except PlanError:
        return False
    return len(encoded.input_ids) > max(encoded.response_start, 1)


def question(example: Example, share: float) -> tuple[str, str]:
    """(prompt, answer) of an example; text without a prompt is cut after `share` of its words."""
    if example.prompt:
        return example.prompt, example.text
    words = example.text.split(" ")
    cut = min(max(1, round(share * len(words))), max(len(words) - 1, 1))
    return " ".join(words[:cut]), "".join(f" {word}" for word in words[cut:])


def against(example: Example, share: float, answer: str) -> Pair:
    """The example's own answer to its question, and `answer` to the same."""
    prompt, text = question(example, share)
    return replace(example, prompt=prompt, text=text), replace(example, prompt=prompt, text=answer)


def pick(key: str, options: Sequence[str]) -> str:
    """One of `options`, always the same for a key."""
    return options[hashlib.sha256(key.encode()).digest()[0] % len(options)]
