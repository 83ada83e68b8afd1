"""The result of training: only the tensors that changed, with where they come from in the metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import PrerequisiteError

FORMAT = "unlearn-suite-patch-1"


def tensor_hash(tensor: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes."""
    flat = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{flat.dtype}{tuple(flat.shape)}".encode())
    digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save(path: Path, model: nn.Module, original: Mapping[str, Tensor], provenance: Mapping[str, Any]) -> None:
    """Write the current values of the tensors in `original` that differ from it (atomically)."""
    now = dict(model.named_parameters())
    changed = {
        n: now[n].detach().cpu().contiguous()
        for n, t in original.items()
        if not torch.equal(now[n], t.to(now[n].device))
    }
    _write(path, changed, {name: tensor_hash(original[name]) for name in changed}, provenance)


def copy(source: Path, path: Path, provenance: Mapping[str, Any]) -> None:
    """Write a patch once more, as another one's (atomically)."""
    _write(path, *load(source), provenance)


def _write(path: Path, changed: dict[str, Tensor], base: Mapping[str, str], provenance: Mapping[str, Any]) -> None:
    metadata = {
        "format": FORMAT,
        "base_hashes": json.dumps(base, sort_keys=True),
        "provenance": json.dumps(provenance, sort_keys=True),
    }
    temporary = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(changed, temporary, metadata)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise PrerequisiteError(
            f"cannot write the patch: {error}", code="disk", where=str(path), hint="free some disk space and run again"
        ) from error


def names(path: Path) -> tuple[str, ...]:
    """The changed tensors' names."""
    with _reading(path), safe_open(path, framework="pt") as file:
        return tuple(file.keys())


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(changed tensors, hashes of the base tensors they replace)."""
    with _reading(path), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.get("format") != FORMAT:
        raise PrerequisiteError("this is not an unlearning patch", code="patch", where=str(path))
    return tensors, json.loads(metadata["base_hashes"])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise PrerequisiteError(
            f"cannot read the patch: {error}",
            code="patch",
            where=str(path),
            hint="delete the cell's folder and run again",
        ) from error


def apply(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Put a patch onto its base; returns the tensors it replaced. Raises when the base is another one."""
    tensors, base = load(path)
    parameters = dict(model.named_parameters())
    for name, digest in base.items():
        if name not in parameters or tensor_hash(parameters[name]) != digest:
            raise PrerequisiteError(
                f"the patch belongs to another base model: {name} differs",
                code="patch-base",
                where=str(path),
                hint="use the model and revision named in the patch's provenance",
            )
    replaced = {name: parameters[name].detach().clone() for name in tensors}
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    return replaced
