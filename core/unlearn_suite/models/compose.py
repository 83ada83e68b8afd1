"""Patches against a base: where each tensor lies in the base's files, and whether the patches fit it and each other.

Nothing is written here. Names, shapes and hashes of everything are checked before the first byte of a result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from ..engine.patch import tensor_hash
from ..errors import PrerequisiteError
from .folder import unusable, weight_files
from .patch_file import PatchFile
from .tensor_file import Entry, TensorFile


@dataclass(frozen=True)
class Change:
    """A parameter that gets a new value: `patch` holds it, `places` are the stored tensors that become it.

    There are several places when the model ties its embeddings and the files hold both copies.
    """

    name: str
    patch: PatchFile
    places: tuple[str, ...]


class BaseFiles:
    """The tensors of a Hugging Face folder, over all its shards, by the names they are stored under."""

    def __init__(self, folder: Path) -> None:
        """Raises `PrerequisiteError` when the folder is incomplete or damaged."""
        self.folder = folder
        self.files = [TensorFile(path) for path in weight_files(folder)]
        self.holder: dict[str, TensorFile] = {}
        for file in self.files:
            for key in file.entries:
                if key in self.holder:
                    message = f"{key} is in {self.holder[key].path.name} and in {file.path.name}"
                    raise unusable(folder, message, "download the model again")
                self.holder[key] = file

    def entry(self, key: str) -> Entry:
        """Raises KeyError."""
        return self.holder[key].entries[key]

    def read(self, key: str) -> Tensor:
        """Raises KeyError."""
        return self.holder[key].read(key)


def changes(base: BaseFiles, patches: Sequence[PatchFile]) -> list[Change]:
    """What the patches, applied in this order, make of the base. Holds at most three tensors at a time.

    A patch fits a tensor when it was made on the base's value, or on the value the patch before it gives.
    Raises `PrerequisiteError` that names the tensor that does not fit and why.
    """
    names = dict.fromkeys(name for patch in patches for name in patch.entries)
    return [_change(base, name, [patch for patch in patches if name in patch.entries]) for name in names]


def _change(base: BaseFiles, name: str, users: Sequence[PatchFile]) -> Change:
    first = users[0]
    key = _stored_name(base, name, first)
    _check_shapes(base, key, name, users)
    stored = base.read(key)
    if not _is_made_on(first, name, stored):
        raise _wrong_base(base, name, users, stored)
    for earlier, later in pairwise(users):
        _check_order(base, name, earlier, later, stored)
    return Change(name, users[-1], (key, *_tied_copies(base, key, stored)))


def _is_made_on(patch: PatchFile, name: str, value: Tensor) -> bool:
    """Whether a value, in the dtype that the model was trained in, is the one that the patch replaces."""
    dtype = patch.entries[name].dtype
    return dtype is not None and tensor_hash(value.to(dtype)) == patch.base_hashes[name]


def _check_shapes(base: BaseFiles, key: str, name: str, users: Sequence[PatchFile]) -> None:
    shape = base.entry(key).shape
    for patch in users:
        if (found := patch.entries[name].shape) != shape:
            message = f"the patch belongs to another base model: {name} is {list(found)} there and {list(shape)} here"
            raise _misfit(patch, message)


def _check_order(base: BaseFiles, name: str, earlier: PatchFile, later: PatchFile, stored: Tensor) -> None:
    value = earlier.read(name)
    # an exported checkpoint keeps the base's dtype, so a later patch may have been made on the rounded value
    if _is_made_on(later, name, value) or _is_made_on(later, name, value.to(stored.dtype)):
        return
    if _is_made_on(later, name, stored):
        message = f"{name} is changed by {earlier.label} too, and this patch was made on the base, not on that result"
        raise _misfit(later, message, "apply one of the two, or train the second on the exported result of the first")
    message = f"{name} was another tensor when this patch was made: neither the base's nor that of {earlier.label}"
    raise _misfit(later, message)


def _wrong_base(base: BaseFiles, name: str, users: Sequence[PatchFile], stored: Tensor) -> PrerequisiteError:
    first = users[0]
    for other in users[1:]:
        if _is_made_on(other, name, stored) and _is_made_on(first, name, other.read(name)):
            message = f"{name} was changed by {other.label} before this patch was made"
            return _misfit(first, message, "give that patch first")
    message = f"the patch belongs to another base model: {name} differs from the one in {base.folder}"
    return _misfit(first, message)


def _misfit(patch: PatchFile, message: str, hint: str = "") -> PrerequisiteError:
    hint = hint or "use the model and revision named in the patch's provenance (`unlearn-suite patch show`)"
    return PrerequisiteError(message, code="patch-base", where=str(patch.path), hint=hint)


# --- names


def _stored_name(base: BaseFiles, name: str, patch: PatchFile) -> str:
    """The name that a parameter is stored under: its own, or the same with a prefix more or less.

    Of tied tensors the files may hold only the one that is not the parameter's name; the hash tells it.
    """
    if name in base.holder:
        return name
    near = [key for key in base.holder if key.endswith(f".{name}") or name.endswith(f".{key}")]
    if len(near) == 1:
        return near[0]
    if not near:
        near = [key for key in _of_shape(base, patch.entries[name].shape) if _is_made_on(patch, name, base.read(key))]
        if len(near) == 1 and _ties(base.folder):
            return near[0]
    found = f"several could be it ({', '.join(near)})" if near else "the patch belongs to another model"
    message = f"{name} is not among the {len(base.holder)} tensors of {base.folder}: {found}"
    raise _misfit(patch, message)


def _tied_copies(base: BaseFiles, key: str, stored: Tensor) -> list[str]:
    """Other names under which the files hold the same tensor, when the model ties its embeddings.

    transformers takes two stored copies as one tensor as long as they are equal, so both must change.
    """
    if _in_a_block(key):
        return []
    digest = tensor_hash(stored)
    same = [
        other
        for other in _of_shape(base, base.entry(key).shape)
        if other != key and base.entry(other).code == base.entry(key).code and tensor_hash(base.read(other)) == digest
    ]
    return same if same and _ties(base.folder) else []


def _of_shape(base: BaseFiles, shape: tuple[int, ...]) -> Iterator[str]:
    """Matrices outside of the blocks: embeddings and heads are the only ones that are ever tied."""
    for key in base.holder:
        if base.entry(key).shape == shape and len(shape) > 1 and not _in_a_block(key):
            yield key


def _in_a_block(key: str) -> bool:
    return any(part.isdigit() for part in key.split("."))


def _ties(folder: Path) -> bool:
    """Whether the model's configuration, with its defaults, ties the head to the embeddings."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:
        # a model with code of its own, which is not run here; True is what transformers takes by default
        plain = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return bool(plain.get("tie_word_embeddings", True))
    return bool(getattr(config.get_text_config(), "tie_word_embeddings", True))
