"""A model and its tokenizer in memory: safetensors only, complete, in eval mode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PrerequisiteError, SuiteError
from .folder import check_folder, unusable
from .quiet import quiet_transformers
from .refs import Ref, Say, local_folder, silent

if TYPE_CHECKING:
    import torch


def load(ref: Ref, dtype: torch.dtype, device: torch.device | str, say: Say = silent) -> tuple[Any, Any]:
    """The causal language model of a reference and its tokenizer.

    The model is in eval mode, in `dtype`, on `device`; the tokenizer pads on the right. Raises
    `PrerequisiteError` when the files are incomplete or damaged, or memory does not suffice.
    """
    import torch

    from .memory import check_memory, too_large

    folder = local_folder(ref, say)
    check_folder(folder)
    check_memory(folder, dtype, torch.device(device))
    trust = bool(ref.get("trust_remote_code", False))
    try:
        with quiet_transformers():
            return _model(folder, dtype, trust).to(device).eval(), _tokenizer(folder, trust)
    except SuiteError:
        raise
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise too_large(folder, str(device)) from error
    except Exception as error:
        raise _explained(folder, error, trust) from error


def _model(folder: Path, dtype: torch.dtype, trust: bool) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    given: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust}
    config = AutoConfig.from_pretrained(folder, **given)
    # sdpa leaves out the soft-capping of attention logits, which changes the numbers (Gemma 2).
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    given |= {"config": config, "dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager" if capped else "sdpa", **given
        )
    except ValueError as error:
        if capped or "scaled_dot_product_attention" not in str(error):
            raise
        model, info = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **given)
    if missing := sorted(info.get("missing_keys") or ()):
        # transformers would fill these with random numbers and go on.
        message = f"{len(missing)} tensors of the model are in none of its files, first {missing[0]}"
        raise unusable(folder, message, "check that config.json belongs to these weights")
    return model


def _tokenizer(folder: Path, trust: bool) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            message = "its tokenizer has neither a padding nor an end token"
            raise unusable(folder, message, "set pad_token in tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _explained(folder: Path, error: Exception, trust: bool) -> PrerequisiteError:
    told = " ".join(str(error).split())[:300]
    hint = "check the files, or download the model again"
    if not trust and "trust_remote_code" in str(error):
        told = "it brings Python code of its own, which is not run"
        hint = "if you trust its author, set trust_remote_code: true for this model in the plan"
    return unusable(folder, f"{told}" if told else type(error).__name__, hint)
