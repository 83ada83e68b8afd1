"""A Hugging Face folder on disk: what must be in it before anything is read from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..errors import PrerequisiteError

INDEX = "model.safetensors.index.json"
SMALL_FILES = frozenset({".json", ".jinja", ".model", ".txt", ".tiktoken", ".py"})
"""beside the weights, what belongs to a model: configuration, tokenizer, templates, code"""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors shards of a folder, complete. Raises `PrerequisiteError`."""
    if (index := folder / INDEX).is_file():
        try:
            shards = sorted(
                {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            )
        except (ValueError, KeyError, AttributeError) as error:
            raise unusable(folder, f"{INDEX} cannot be read: {error}", "download the model again") from error
        absent = [name for name in shards if not (folder / name).is_file()]
        if absent:
            message = f"{len(absent)} of {len(shards)} weight files are missing, first {absent[0]}"
            raise unusable(folder, message, "download the model again")
        return [folder / name for name in shards]
    if (single := folder / "model.safetensors").is_file():
        return [single]
    if any(found for pattern in _PICKLES for found in folder.glob(pattern)):
        message = "it has pickled weights only, which are not loaded because they can run any code"
        hint = "convert them on a machine that trusts them: model.save_pretrained(folder) writes safetensors"
        raise unusable(folder, message, hint)
    raise unusable(folder, "it has no model.safetensors", "give the folder of a Hugging Face checkpoint")


def check_folder(folder: Path) -> None:
    """Raise `PrerequisiteError` unless a folder has a configuration and complete safetensors weights."""
    if not folder.is_dir():
        raise unusable(folder, "there is no such folder", "correct the model's path", code="model-missing")
    if not (folder / "config.json").is_file():
        raise unusable(folder, "it has no config.json", "give the folder of a Hugging Face checkpoint")
    weight_files(folder)


def identity_files(folder: Path, *, code: bool) -> Iterator[Path]:
    """Every file that can change what a model computes, in a fixed order; `code` adds Python files."""
    weights = weight_files(folder)
    suffixes = SMALL_FILES if code else SMALL_FILES - {".py"}
    named = [path for path in folder.iterdir() if path.suffix in suffixes and path.is_file()]
    templates = folder / "additional_chat_templates"
    yield from sorted({*weights, *named, *(templates.glob("*.jinja") if templates.is_dir() else ())})


def unusable(folder: Path, message: str, hint: str, code: str = "model-folder") -> PrerequisiteError:
    """The error for a folder that no model can be loaded from."""
    return PrerequisiteError(
        f"no model can be loaded from this folder: {message}", code=code, where=str(folder), hint=hint
    )
