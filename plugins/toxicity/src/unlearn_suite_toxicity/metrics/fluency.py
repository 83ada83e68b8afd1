"""How likely another language model finds sampled continuations: broken text is unlikely, whatever its toxicity."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unlearn_suite import PrerequisiteError, ValueSpec

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


def fluency(folder: Path, prompts: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """`FLUENCY` of each prompt's continuations (mean negative log-likelihood per token); {} where all are empty."""
    model = _model(folder)
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


@functools.cache
def _model(folder: Path) -> EvalModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from unlearn_suite import EvalModel

    try:
        hf = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
        return EvalModel(hf, AutoTokenizer.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError) as error:
        raise PrerequisiteError(
            f"the reference model in {folder} cannot be loaded: {str(error).splitlines()[0]}",
            code="reference-model",
            hint="give the folder of a Hugging Face checkpoint with its tokenizer",
        ) from error
