"""Where kept tensors stand: in memory, or in files that are checked when they are opened."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import PrerequisiteError

Build = Callable[[], Tensor]
Where = Literal["memory", "disk"]


@dataclass
class Shelf:
    """Tensors by name. Whoever hands the same shelf (or folder) to two stages says that equal names mean equal
    values there: the same base weights, precision, device and versions.

    `memory` lives as long as its owner; `folder` holds one safetensors file a name. `lock(name)` is held while
    a file is read for the first time or made, for other processes that use the folder; never two at a time, so names
    may share one.
    """

    memory: dict[str, Tensor] = field(default_factory=dict)
    folder: Path | None = None
    lock: Callable[[str], AbstractContextManager[Any]] = lambda name: nullcontext()
    _open: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def get(self, name: str, where: Where, warn: Callable[[str], None]) -> Tensor | None:
        """A tensor (from disk: mapped, not read) or None; a damaged file is named in a warning and counts as none."""
        if where == "memory":
            return self.memory.get(name)
        if name not in self._open:
            path = self.path(name)
            with self.lock(name):
                found = _read(path, warn)
            if found is None:
                return None
            self._open[name] = found
        return self._open[name]

    def make(self, name: str, where: Where, build: Build) -> Tensor:
        """What `get` had not. `build` runs under the name's lock, so it must ask for no other name on disk."""
        if where == "memory":
            self.memory[name] = build()
            return self.memory[name]
        path = self.path(name)
        with self.lock(name):
            found = _read(path)  # another process may have made it meanwhile
            if found is None:
                _write(path, build())
                found = _read(path)
        if found is None:
            message = "kept activations that were just written read back differently"
            raise PrerequisiteError(message, code="disk", where=str(path))
        self._open[name] = found
        return found

    def path(self, name: str) -> Path:
        if self.folder is None:
            raise PrerequisiteError(
                "there is no folder to keep activations in",
                code="keep",
                hint="set `keep: off` in the stage",
            )
        return self.folder / f"{name}.safetensors"


def _read(path: Path, warn: Callable[[str], None] = lambda text: None) -> Tensor | None:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            value: Tensor = file.get_tensor("value")
            whole = file.metadata().get("sha256") == _sha256(value)
    except (SafetensorError, OSError):
        whole = False
    if whole:
        return value
    warn(f"kept activations {path.name} are damaged: computing them again")
    return None


def _write(path: Path, value: Tensor) -> None:
    from safetensors.torch import save_file

    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"value": value}, part, {"sha256": _sha256(value)})
        part.replace(path)
    except Exception as error:
        part.unlink(missing_ok=True)
        raise PrerequisiteError(
            f"cannot write kept activations: {error}",
            code="disk",
            where=str(path),
            hint="free some disk space, or set `keep: off` in the stage",
        ) from error


def _sha256(value: Tensor) -> str:
    data: Any = value.contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(data).hexdigest()
