"""Where each parameter of a model lies in the files of its folder, told from their headers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PrerequisiteError
from .compose import BaseFiles
from .tensor_file import TensorFile


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, by the name it is stored under."""

    file: TensorFile
    key: str


def stored_parameters(model: Any, folder: Path) -> dict[str, Stored] | None:
    """Parameter name -> its place, for every parameter of a model whose parameters may be on the meta device.

    None when a parameter's value is not simply one stored tensor: it is in no file or in two, has another shape
    or an exotic dtype, or is put together from several tensors (mixtures of experts). Such a model can only be
    loaded as a whole.
    """
    try:
        files = BaseFiles(folder)
    except PrerequisiteError:
        return None  # loading it as a whole tells what is wrong
    parameters = dict(model.named_parameters())
    if set(model.state_dict()) - {name for names in _all_names(model).values() for name in names}:
        return None  # buffers with stored values
    found = _found(model, files)
    if found is None or found.keys() != parameters.keys():
        return None
    for name, place in found.items():
        entry = place.file.entries[place.key]
        if entry.shape != tuple(parameters[name].shape) or entry.dtype is None:
            return None
    return found


def _found(model: Any, files: BaseFiles) -> dict[str, Stored] | None:
    first_name = {alias: names[0] for names in _all_names(model).values() for alias in names}
    found: dict[str, Stored] = {}
    for key, target in _targets(model, files):
        if target is None:
            return None
        if (name := first_name.get(target)) is None:
            continue
        if name in found:
            return None  # both copies of tied tensors are stored, and they need not be equal
        found[name] = Stored(files.holder[key], key)
    return found


def _targets(model: Any, files: BaseFiles) -> Iterator[tuple[str, str | None]]:
    """(stored name, the name that transformers loads it as); None for the name when it converts values."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, rename_source_key

        transforms = get_model_conversion_mapping(model)
    except ImportError:
        yield from ((key, None) for key in files.holder)
        return
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    renamings = [transform for transform in transforms if not isinstance(transform, WeightConverter)]
    names = model.state_dict()
    for key in files.holder:
        target, converted = rename_source_key(key, renamings, converters, model.base_model_prefix, names)
        if target not in names and key in names:
            target, converted = key, None
        yield key, None if converted is not None else target


def _all_names(model: Any) -> Mapping[int, list[str]]:
    """Every name of each parameter; tied ones have several, the first of which `named_parameters` gives."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names
