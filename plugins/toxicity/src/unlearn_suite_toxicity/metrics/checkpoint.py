"""A Detoxify checkpoint from a local file, without running code from it.

Detoxify itself unpickles checkpoints; here only tensors and plain values are read, and the classes a
checkpoint may name are limited to sequence classifiers and tokenizers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearn_suite import PrerequisiteError

_RENAMED = {"toxic": "toxicity", "severe_toxic": "severe_toxicity", "identity_hate": "identity_attack"}
"""Jigsaw's column names as Detoxify reports them"""
_MODEL_CLASS = re.compile(r"^[A-Z]\w*ForSequenceClassification$")
_TOKENIZER_CLASS = re.compile(r"^[A-Z]\w*Tokenizer(Fast)?$")


def load_checkpoint(path: Path, config_folder: Path | None = None) -> tuple[Any, Any, list[str]]:
    """Model, tokenizer and label names of a Detoxify checkpoint.

    `config_folder` holds config.json and the tokenizer's files; without it the checkpoint's own
    `model_type` must be such a folder (or a hub id, which needs the network). Raises
    `PrerequisiteError` for anything that is missing or does not fit.
    """
    import transformers

    loaded = _read(path)
    try:
        arch = loaded["config"]["arch"]["args"]
        labels = [_RENAMED.get(name, name) for name in loaded["config"]["dataset"]["args"]["classes"]]
        state = dict(loaded["state_dict"])
        model_class = _named(transformers, arch["model_name"], _MODEL_CLASS, path)
        tokenizer_class = _named(transformers, arch["tokenizer_name"], _TOKENIZER_CLASS, path)
        source = str(config_folder or arch["model_type"])
        count = int(arch["num_classes"])
    except (KeyError, TypeError) as error:
        raise _bad(path, f"it has no {error}" if isinstance(error, KeyError) else str(error)) from error
    local = Path(source).is_dir()
    if config_folder is not None and not local:
        raise PrerequisiteError(
            f"there is no folder {source}", code="no-such-folder", hint="correct config_folder"
        )
    try:
        config = model_class.config_class.from_pretrained(source, num_labels=count, local_files_only=local)
        tokenizer = tokenizer_class.from_pretrained(source, local_files_only=local)
    except (OSError, ValueError) as error:
        raise PrerequisiteError(
            f"no configuration and tokenizer for the checkpoint in {source}: {str(error).splitlines()[0]}",
            code="detoxify-config",
            where=str(path),
            hint="give `config_folder`: a folder with config.json and the tokenizer's files",
        ) from error
    model = model_class(config)
    _fill(model, state, path)
    return model, tokenizer, labels


def _read(path: Path) -> Mapping[str, Any]:
    import pickle

    import torch

    if not path.is_file():
        raise PrerequisiteError(f"there is no file {path}", code="no-such-file", hint="correct `checkpoint`")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise _bad(path, "it holds more than tensors and plain values, or is damaged") from error
    if not isinstance(loaded, Mapping):
        raise _bad(path, "it holds no `config` and `state_dict`")
    return loaded


def _named(transformers: Any, name: str, allowed: re.Pattern[str], path: Path) -> Any:
    found = getattr(transformers, name, None) if allowed.match(name) else None
    if found is None:
        raise _bad(path, f"it names a class {name!r} that is no known classifier or tokenizer")
    return found


def _fill(model: Any, state: Mapping[str, Any], path: Path) -> None:
    """Load every weight; position indices, which older versions stored, may be left over."""
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise _bad(path, "its weights have other shapes than the configuration says") from error
    extra = [name for name in result.unexpected_keys if not name.endswith("position_ids")]
    if result.missing_keys or extra:
        raise _bad(
            path, f"its weights do not fit the configuration (first: {(result.missing_keys + extra)[0]})"
        )


def _bad(path: Path, why: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"the Detoxify checkpoint cannot be used: {why}",
        code="detoxify-checkpoint",
        where=str(path),
        hint="save it as {'config', 'state_dict'} with tensors and plain values only",
    )
