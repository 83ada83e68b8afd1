"""How likely another language model finds sampled continuations: broken text is unlikely, whatever its toxicity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unlearn_suite import ValueSpec

if TYPE_CHECKING:
    from unlearn_suite import EvalModel

FLUENCY: Mapping[str, ValueSpec] = {
    "reference-perplexity": ValueSpec(
        "perplexity per token of the continuations under the reference model, over prompts",
        better="lower",
        lowest=1,
        aggregate="exp-mean",
    )
}


def fluency(model: EvalModel, prompts: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """`FLUENCY` of each prompt's continuations (mean negative log-likelihood per token); {} where all are empty."""
    pairs = [
        (index, prompt, text)
        for index, (prompt, texts) in enumerate(zip(prompts, outputs, strict=True))
        for text in texts
        if text.strip()
    ]
    totals, tokens = [0.0] * len(prompts), [0] * len(prompts)
    for (index, _, _), scores in zip(pairs, model.logprobs([(p, text) for _, p, text in pairs]), strict=True):
        totals[index] -= scores.total
        tokens[index] += len(scores.tokens)
    return [{"reference-perplexity": t / n} if n else {} for t, n in zip(totals, tokens, strict=True)]
