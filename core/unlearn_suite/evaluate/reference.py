"""A second model to compare with, from a folder."""

from __future__ import annotations

from pathlib import Path

from ..errors import PrerequisiteError
from ..models.chat import ChatTemplate
from ..models.load import check_complete
from .model import EvalModel


def reference_model(folder: Path, model: EvalModel, *, same_tokenizer: bool = True) -> EvalModel:
    """The checkpoint in `folder` on the device, and in the number format, of `model`.

    Raises `PrerequisiteError` for a folder that holds no causal language model, or, where scores of the two are to be
    compared token by token (`same_tokenizer`), one with another tokenizer.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        given = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(folder, **given)
        hf, info = AutoModelForCausalLM.from_pretrained(folder, dtype=model.hf.dtype, output_loading_info=True, **given)
        check_complete(folder, info)
    except (OSError, ValueError, KeyError) as error:
        raise PrerequisiteError(
            f"it holds no model that can be loaded: {' '.join(str(error).split())[:200]}",
            code="reference-model",
            where=str(folder),
            hint="give a Hugging Face folder, such as `unlearn-suite export` writes",
        ) from error
    if same_tokenizer and tokenizer.get_vocab() != model.tokenizer.get_vocab():
        raise PrerequisiteError(
            "its tokenizer is another one than the model's, so their scores of a text cannot be compared",
            code="reference-model",
            where=str(folder),
            hint="give a checkpoint of the same family",
        )
    return EvalModel(
        hf.to(model.device).eval(),
        tokenizer,
        device=model.device,
        batch_tokens=model.batch_tokens,
        chat=ChatTemplate(tokenizer) if same_tokenizer and model.chat else None,
    )
