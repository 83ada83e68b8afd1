"""Checkpoints inside a stage: everything the future depends on, atomic, checked by hash when read."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.serialization import default_restore_location

from ..errors import PrerequisiteError

KEEP = 2


def save(folder: Path, stage: int, step: int, state: Mapping[str, Any]) -> Path:
    """Write `stage<i>.step<n>.<sha>.pt`; the hash in the name is of the content. Older ones go."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:16]
    target = folder / f"stage{stage}.step{step:06d}.{digest}.pt"
    temporary = target.with_suffix(".part")
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise PrerequisiteError(
            f"cannot write a checkpoint: {error.strerror}",
            code="disk",
            where=str(target),
            hint="free some disk space and run the same command again",
        ) from error
    for old in _files(folder, stage)[:-KEEP]:
        old.unlink(missing_ok=True)
    return target


def latest(folder: Path, stage: int, device: torch.device, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest checkpoint of a stage that is whole; broken ones are named and passed over.

    What was on a GPU comes back on `device`, whatever that is.
    """

    def place(storage: Any, where: str) -> Any:
        return default_restore_location(storage, "cpu" if where == "cpu" else str(device))

    paths = _files(folder, stage)
    while paths:
        path = paths.pop()
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] != path.name.split(".")[2]:
            instead = "using the one before it" if paths else "there is none before it, the stage begins anew"
            warn(f"checkpoint {path.name} is damaged: {instead}")
            continue
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=place, weights_only=True)
        return state
    return None


def clear(folder: Path) -> None:
    """Remove all checkpoints (the patch holds the result)."""
    for path in [*folder.glob("*.pt"), *folder.glob("*.part")]:
        path.unlink(missing_ok=True)


def _files(folder: Path, stage: int) -> list[Path]:
    return sorted(folder.glob(f"stage{stage}.step*.pt"))
