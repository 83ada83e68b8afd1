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
_VOCABULARIES = frozenset(
    ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model")
)
_MODEL_CLASS = re.compile(r"^[A-Z]\w*ForSequenceClassification$")
_TOKENIZER_CLASS = re.compile(r"^[A-Z]\w*Tokenizer(Fast)?$")


def load_checkpoint(path: Path, config_folder: Path | None = None) -> tuple[Any, Any, list[str]]:
    """Model, tokenizer and label names of a Detoxify checkpoint.

    `config_folder` holds config.json and the tokenizer's files; without it the checkpoint's own
    `model_type` must be such a folder (or a hub id, which needs the network). Raises
    `PrerequisiteError` for anything that is missing or does not fit.
    """
    import transformers

    if config_folder is not None and not config_folder.is_dir():
        raise PrerequisiteError(
            f"there is no folder {config_folder}", code="no-such-folder", hint="correct `config_folder`"
        )
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
    config, tokenizer = _configured(model_class, tokenizer_class, source, count, path)
    model = model_class(config)
    _fill(model, state, path)
    return model, tokenizer, labels


def _configured(model_class: Any, tokenizer_class: Any, source: str, labels: int, path: Path) -> tuple[Any, Any]:
    """Configuration and tokenizer from a folder (or a hub id).

    A folder is looked into first: without files the library would make an empty configuration and an
    empty tokenizer, and every score would be noise.
    """
    folder = Path(source)
    names = {p.name for p in folder.iterdir()} if folder.is_dir() else None
    if names is not None and not ("config.json" in names and names & _VOCABULARIES):
        raise _no_config(source, path, "it needs config.json and a vocabulary")
    try:
        config = model_class.config_class.from_pretrained(source, num_labels=labels, local_files_only=names is not None)
        return config, tokenizer_class.from_pretrained(source, local_files_only=names is not None)
    except (OSError, ValueError) as error:
        raise _no_config(source, path, str(error).splitlines()[0]) from error


def _no_config(source: str, path: Path, why: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"no configuration and tokenizer for the checkpoint in {source}: {why}",
        code="detoxify-config",
        where=str(path),
        hint="give `config_folder`: a folder with config.json and the tokenizer's files",
    )


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
        raise _bad(path, f"its weights do not fit the configuration (first: {(result.missing_keys + extra)[0]})")


def _bad(path: Path, why: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"the Detoxify checkpoint cannot be used: {why}",
        code="detoxify-checkpoint",
        where=str(path),
        hint="save it as {'config', 'state_dict'} with tensors and plain values only",
    )
