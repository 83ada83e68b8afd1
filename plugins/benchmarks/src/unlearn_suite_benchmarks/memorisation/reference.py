"""A second model to compare with, from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unlearn_suite import PrerequisiteError

if TYPE_CHECKING:
    from unlearn_suite import EvalModel


def reference_model(folder: Path, model: EvalModel) -> EvalModel:
    """The checkpoint in `folder` on the device, and in the number format, of `model`.

    Raises `PrerequisiteError` for a folder that holds no causal language model, or one with another tokenizer.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        hf = AutoModelForCausalLM.from_pretrained(folder, dtype=model.hf.dtype)
    except (OSError, ValueError, KeyError) as error:
        raise PrerequisiteError(
            f"it holds no model that can be loaded: {' '.join(str(error).split())[:200]}",
            code="reference-model",
            where=str(folder),
            hint="give a Hugging Face folder, such as `unlearn-suite export` writes",
        ) from error
    if tokenizer.get_vocab() != model.tokenizer.get_vocab():
        raise PrerequisiteError(
            "its tokenizer is another one than the model's, so their scores of a text cannot be compared",
            code="reference-model",
            where=str(folder),
            hint="give a checkpoint of the same family",
        )
    return type(model)(hf.to(model.device), model.tokenizer, device=model.device, batch_tokens=model.batch_tokens)
