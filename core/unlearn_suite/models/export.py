"""Base + patches -> a Hugging Face folder. Shards are copied as they are; only the changed tensors' bytes differ.

At most a few single tensors are in memory at a time, whatever the size of the model.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import PrerequisiteError
from .card import PROVENANCE, write_card, write_provenance
from .compose import BaseFiles, Change, changes
from .folder import INDEX, SMALL_FILES
from .new_folder import check_target, new_folder
from .patch_file import PatchFile
from .refs import Say, silent
from .tensor_file import CODES, Entry, TensorFile, raw

_LEGAL = ("LICENSE", "LICENCE", "NOTICE", "COPYING", "USE_POLICY")
_NOT_COPIED = {INDEX, PROVENANCE, "MANIFEST.json"}


@dataclass
class Exported:
    """What was written. `changed` values differ from the base in the patches' own precision; `lost` of these
    are the base's again after rounding to the dtype of the checkpoint."""

    folder: Path
    tensors: list[str]
    shards: int
    bytes: int
    changed: int = 0
    lost: int = 0
    rounded: dict[str, str] = field(default_factory=dict)
    """parameter -> "F32 -> BF16" where the checkpoint's dtype is not the patch's"""


def export_checkpoint(
    base: Path,
    patches: Sequence[PatchFile],
    target: Path,
    *,
    about: Mapping[str, Any],
    dtype: torch.dtype | None = None,
    force: bool = False,
    say: Say = silent,
) -> Exported:
    """Write `base` with `patches` applied in order as the folder `target`, and return what was done.

    `about`: what is known of the base (see `card.about_base`). `dtype`: dtype of all floating-point tensors;
    None keeps each as the base has it. Raises `PlanError` (the target) and `PrerequisiteError` (base, patches,
    disk); nothing is left behind then.
    """
    check_target(target, force, keep=base)
    files = BaseFiles(base)
    todo = changes(files, patches)
    places = {key: change for change in todo for key in change.places}
    beside = list(_files_beside(base))
    sizes = [_new_size(file, dtype) for file in files.files]
    needed = sum(sizes) + sum(path.stat().st_size for path in beside)
    done = Exported(target, [change.name for change in todo], len(files.files), sum(sizes))
    with new_folder(target, needed) as part:
        for path in beside:
            copy = part / path.relative_to(base)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
        for number, file in enumerate(files.files, start=1):
            say(f"{file.path.name} ({number} of {len(files.files)})")
            _write_shard(file, part / file.path.name, places, dtype, done)
        _write_index(files, part, dtype)
        if dtype is not None:
            _set_dtype(part / "config.json", dtype)
        write_provenance(base, part, patches, about, done.rounded)
        write_card(part, patches, about)
    return done


def _files_beside(base: Path) -> Iterator[Path]:
    """Configuration, tokenizer, templates, licence and the model's own code; no other weights."""
    for path in sorted(base.iterdir()):
        wanted = path.suffix in SMALL_FILES or path.name.upper().startswith(_LEGAL)
        if wanted and path.is_file() and path.name not in _NOT_COPIED and not path.name.endswith(".index.json"):
            yield path
    templates = base / "additional_chat_templates"
    yield from sorted(templates.glob("*.jinja")) if templates.is_dir() else ()


def _write_shard(
    source: TensorFile, target: Path, places: Mapping[str, Change], dtype: torch.dtype | None, done: Exported
) -> None:
    if dtype is None:
        shutil.copyfile(source.path, target)
        with target.open("rb+") as file:
            for key, entry in source.entries.items():
                if key in places:
                    file.seek(entry.start)
                    file.write(raw(_new_value(source, key, places[key], None, done)))
        return
    with target.open("wb") as file:
        file.write(_header(source, dtype))
        for key in source.entries:
            if key in places:
                file.write(raw(_new_value(source, key, places[key], dtype, done)))
            else:
                value, kept = source.read(key), _dtype_of(source.entries[key], dtype)
                file.write(raw(_converted(value, kept, key, source.path)))


def _new_value(source: TensorFile, key: str, change: Change, dtype: torch.dtype | None, done: Exported) -> Tensor:
    """The patch's value in the dtype it is stored in; what rounding takes away is counted."""
    stored, value = source.read(key), change.patch.read(change.name)
    kept = _dtype_of(source.entries[key], dtype)
    written = _converted(value, kept, change.name, change.patch.path)
    if key == change.places[0]:
        differs = value != stored.to(value.dtype)
        done.changed += int(differs.sum())
        done.lost += int((differs & (written == stored.to(kept))).sum())
        if kept != value.dtype:
            done.rounded[change.name] = f"{CODES[value.dtype]} -> {CODES[kept]}"
    return written


def _converted(value: Tensor, dtype: torch.dtype, name: str, path: Path) -> Tensor:
    """Raises `PrerequisiteError` when finite values are too large for `dtype`."""
    written = value.to(dtype)
    if value.ndim == 0:  # what old checkpoints fill masks with (GPT-Neo's masked_bias): -inf masks as well
        return written
    if not torch.isfinite(written).all() and torch.isfinite(value).all():
        message = f"{name} has values that {CODES[dtype]} cannot hold"
        raise PrerequisiteError(message, code="dtype", where=str(path), hint="give --dtype float32")
    return written


def _dtype_of(entry: Entry, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype an entry is written in: integers stay what they are."""
    if entry.dtype is None:
        message = f"a tensor has dtype {entry.code}, which is not converted"
        raise PrerequisiteError(message, code="dtype", hint="leave --dtype out, or take an unquantised model")
    return dtype if dtype is not None and entry.dtype.is_floating_point else entry.dtype


def _new_size(file: TensorFile, dtype: torch.dtype | None) -> int:
    """Bytes of a shard as it will be written."""
    if dtype is None:
        return file.path.stat().st_size
    return len(_header(file, dtype)) + sum(_bytes(entry, dtype) for entry in file.entries.values())


def _bytes(entry: Entry, dtype: torch.dtype) -> int:
    return math.prod(entry.shape) * _dtype_of(entry, dtype).itemsize


def _header(file: TensorFile, dtype: torch.dtype) -> bytes:
    """The header of the same tensors in another dtype: length, JSON, spaces up to a multiple of eight bytes."""
    header: dict[str, Any] = {"__metadata__": dict(file.metadata)} if file.metadata else {}
    end = 0
    for key, entry in file.entries.items():
        start, end = end, end + _bytes(entry, dtype)
        code = CODES[_dtype_of(entry, dtype)]
        header[key] = {"dtype": code, "shape": list(entry.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_index(files: BaseFiles, part: Path, dtype: torch.dtype | None) -> None:
    if not (files.folder / INDEX).is_file():
        return
    index = json.loads((files.folder / INDEX).read_text(encoding="utf-8"))
    if dtype is not None and "total_size" in index.get("metadata", {}):
        entries = (entry for file in files.files for entry in file.entries.values())
        index["metadata"]["total_size"] = sum(_bytes(entry, dtype) for entry in entries)
    (part / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _set_dtype(path: Path, dtype: torch.dtype) -> None:
    """Both names of the setting, for old and new transformers, wherever the configuration has one."""
    config = json.loads(path.read_text(encoding="utf-8"))
    name = str(dtype).removeprefix("torch.")
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in ("dtype", "torch_dtype"):
            if key in part:
                part[key] = name
    if "dtype" not in config and "torch_dtype" not in config:
        config["torch_dtype"] = name
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
