"""A second model to compare with, from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from ..errors import PrerequisiteError

if TYPE_CHECKING:
    from .memory import ScoreMemory
    from .model import EvalModel


def reference_model(folder: Path, model: EvalModel, *, same_tokenizer: bool = True) -> EvalModel:
    """The checkpoint in `folder`, a Hugging Face folder, on the device, and in the number format, of `model`.

    It is a second model in memory, and the last one stays there with its scores for as long as `model.hf` does. Raises
    `PrerequisiteError` (`reference-model`) for a folder that holds no causal language model, or, where scores of the
    two are to be compared token by token (`same_tokenizer`), one with another tokenizer.
    """
    from ..models.chat import ChatTemplate
    from .model import EvalModel

    found = _loaded(folder, model)
    if same_tokenizer and found.tokenizer.get_vocab() != model.tokenizer.get_vocab():
        raise PrerequisiteError(
            "its tokenizer is another one than the model's, so their scores of a text cannot be compared",
            code="reference-model",
            where=str(folder),
            hint="give a checkpoint of the same family",
        )
    return EvalModel(
        found.hf,
        found.tokenizer,
        device=model.device,
        batch_tokens=model.batch_tokens,
        memory=found.memory,
        chat=ChatTemplate(found.tokenizer) if same_tokenizer and model.chat else None,
    )


class _Loaded(NamedTuple):
    key: tuple[Any, ...]
    hf: Any
    tokenizer: Any
    memory: ScoreMemory


_last: WeakKeyDictionary[Any, _Loaded] = WeakKeyDictionary()
"""the model that is scored -> the reference that was read last beside it"""


def let_go(hf: Any) -> None:
    """Give up the reference that was read beside a model: its memory is wanted for training, say."""
    _last.pop(hf, None)


def _loaded(folder: Path, model: EvalModel) -> _Loaded:
    """From memory while nothing in the folder has changed. Raises `PrerequisiteError`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ..models.load import check_complete
    from .memory import ScoreMemory

    try:
        files = sorted((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir())
        key = (folder.resolve(), tuple(files), model.device, model.hf.dtype)
        if (known := _last.get(model.hf)) is not None and known.key == key:
            return known
        let_go(model.hf)  # before the next one needs the memory
        del known
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
    _last[model.hf] = _Loaded(key, hf.to(model.device).eval(), tokenizer, ScoreMemory())
    return _last[model.hf]
