"""A model and its tokenizer in memory: safetensors only, complete or the part that is asked for, in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import SuiteError
from .folder import check_folder, unusable
from .quiet import quiet_transformers
from .refs import Ref, Say, local_folder, silent

if TYPE_CHECKING:
    import torch

    from ..engine.shape import ModelShape
    from .absent import Absent

T = TypeVar("T")
Choose = Callable[["ModelShape"], Collection[str] | None]
"""a model's shape -> the parameters that are needed at once, None for all"""


def load(ref: Ref, dtype: torch.dtype, device: torch.device | str, say: Say = silent) -> tuple[Any, Any]:
    """The causal language model of a reference and its tokenizer.

    The model is in eval mode, in `dtype`, on `device`; the tokenizer pads on the right. Raises
    `PrerequisiteError` when the files are incomplete or damaged, or memory does not suffice.
    """
    model, tokenizer, _ = load_part(ref, dtype, device, None, say)
    return model, tokenizer


def load_part(
    ref: Ref, dtype: torch.dtype, device: torch.device | str, choose: Choose | None, say: Say = silent
) -> tuple[Any, Any, Absent | None]:
    """The same with only the chosen parameters in memory, and what is absent: None when the model is whole.

    The others are on the meta device, and no byte of them is read. A model whose files cannot be read
    parameter by parameter (code or quantisation of its own, experts that are put together) is loaded whole,
    and so is any when `choose` is None.
    """
    import torch

    folder = local_folder(ref, say)
    check_folder(folder)
    trust = bool(ref.get("trust_remote_code", False))
    where = torch.device(device)
    with explaining(folder, where, trust):
        absent = None if choose is None or trust else _absent(folder, dtype, where)
    chosen = choose(absent.shape) if choose and absent else None
    with explaining(folder, where, trust):
        if absent is None or chosen is None:
            return _whole(folder, dtype, where, trust), read_tokenizer(folder, trust), None
        absent.bring(chosen)
        return absent.model, read_tokenizer(folder, trust), absent


def _absent(folder: Path, dtype: torch.dtype, device: torch.device) -> Absent | None:
    from .absent import Absent
    from .skeleton import skeleton
    from .stored import stored_parameters

    if (model := skeleton(folder, dtype, device)) is None:
        return None
    stored = stored_parameters(model, folder)
    return Absent(model, stored, folder, device) if stored else None


def _whole(folder: Path, dtype: torch.dtype, device: torch.device, trust: bool) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    from .memory import check_memory, parameter_count

    check_memory(folder, parameter_count(folder) * dtype.itemsize, device)
    given: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust}
    config = AutoConfig.from_pretrained(folder, **given)
    given |= {"config": config, "dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    model, info = with_attention(
        config, lambda kind: AutoModelForCausalLM.from_pretrained(folder, attn_implementation=kind, **given)
    )
    check_complete(folder, info)
    return model.to(device).eval()


def check_complete(folder: Path, info: Mapping[str, Any]) -> None:
    """Raise `PrerequisiteError` for tensors that transformers found in no file: it fills them with random numbers."""
    if missing := sorted(info.get("missing_keys") or ()):
        message = f"{len(missing)} tensors of the model are in none of its files, first {missing[0]}"
        raise unusable(folder, message, "check that config.json belongs to these weights")


def with_attention(config: Any, make: Callable[[str], T]) -> T:
    """`make` a model with the fastest attention that computes what the model's authors meant."""
    # sdpa leaves out the soft-capping of attention logits, which changes the numbers (Gemma 2).
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return make("eager")
    try:
        return make("sdpa")
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        return make("eager")


def read_tokenizer(folder: Path, trust: bool) -> Any:
    """The tokenizer of a folder, padding on the right."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            message = "its tokenizer has neither a padding nor an end token"
            raise unusable(folder, message, "set pad_token in tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def explaining(folder: Path, device: torch.device, trust: bool) -> Iterator[None]:
    """Whatever a library raises becomes one `PrerequisiteError` about the folder."""
    import torch

    from .memory import too_large

    try:
        with quiet_transformers():
            yield
    except SuiteError:
        raise
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise too_large(folder, str(device)) from error
    except Exception as error:
        told = " ".join(str(error).split())[:300]
        hint = "check the files, or download the model again"
        if not trust and "trust_remote_code" in str(error):
            told = "it brings Python code of its own, which is not run"
            hint = "if you trust its author, set trust_remote_code: true for this model in the plan"
        raise unusable(folder, told or type(error).__name__, hint) from error
