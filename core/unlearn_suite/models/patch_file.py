"""An unlearning patch on disk: what it changes, on what, and where it comes from; its tensors one at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..engine.patch import FORMAT, tensor_hash
from ..errors import PrerequisiteError
from .identity import file_sha256
from .tensor_file import Entry, TensorFile


class PatchFile:
    """`base_hashes`: tensor -> hash of the value it replaces, in the patch's own dtype (see `tensor_hash`)."""

    def __init__(self, path: Path) -> None:
        """`path`: the patch, or the folder of the cell it lies in. Raises `PrerequisiteError`."""
        if path.is_dir():
            path = path / "patch.safetensors"
        self.path = path
        self.file = TensorFile(path)
        metadata = self.file.metadata
        if metadata.get("format") != FORMAT:
            found = f"its format is {metadata['format']!r}" if "format" in metadata else "it names no format"
            message = f"this is not an unlearning patch: {found}, expected {FORMAT!r}"
            raise PrerequisiteError(message, code="patch", where=str(path), hint="give a cell's patch.safetensors")
        self.base_hashes: Mapping[str, str] = json.loads(metadata["base_hashes"])
        self.provenance: Mapping[str, Any] = json.loads(metadata["provenance"])

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The changed tensors by parameter name."""
        return self.file.entries

    @property
    def label(self) -> str:
        """How a message names it: problem and arm with the cell's id, else its path."""
        known = [str(self.provenance[key]) for key in ("problem", "arm", "id") if key in self.provenance]
        return f"{'.'.join(known)} ({self.path})" if known else str(self.path)

    def read(self, name: str) -> Tensor:
        """The new value of a tensor. Raises KeyError."""
        return self.file.read(name)

    def to_json(self) -> dict[str, Any]:
        """Everything but the values, with a hash of each new value."""
        tensors = {
            name: {
                "dtype": entry.code,
                "shape": list(entry.shape),
                "base": self.base_hashes[name],
                "sha256": tensor_hash(self.read(name)),
            }
            for name, entry in self.entries.items()
        }
        return {"sha256": file_sha256(self.path), "provenance": dict(self.provenance), "tensors": tensors}
