"""Whether a model fits, asked before it is loaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PrerequisiteError
from .folder import unusable, weight_files

if TYPE_CHECKING:
    import torch

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def parameter_count(folder: Path) -> int:
    """Number of values in a folder's safetensors, read from their headers. Raises `PrerequisiteError`."""
    from safetensors import SafetensorError, safe_open

    count = 0
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="numpy") as tensors:
                count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise unusable(folder, f"{file.name} is damaged: {error}", "download the model again") from error
    return count


def check_memory(folder: Path, needed: int, device: torch.device) -> None:
    """Raise `PrerequisiteError` when the weights to be loaded (bytes) alone are larger than `device`'s free memory."""
    free = free_memory(device)
    if free is not None and needed > free:
        raise too_large(folder, str(device), needed, free)


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a device; None when this system does not tell."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or not _MEMINFO.is_file():
        return None
    lines = (line.split() for line in _MEMINFO.read_text().splitlines())
    free = {words[0]: int(words[1]) * 1024 for words in lines}.get("MemAvailable:")
    limits = [value for value in (free, _container_memory()) if value is not None]
    return min(limits) if limits else None


def _container_memory() -> int | None:
    """Free bytes below a container's own limit."""
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return int(limit) - int(used) + int(cache.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


def too_large(folder: Path, device: str, needed: int | None = None, free: int | None = None) -> PrerequisiteError:
    """The error for a model that does not fit."""
    message = f"the model does not fit into the memory of {device}"
    if needed is not None and free is not None:
        message += f": its weights take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
    hint = "take a smaller model, precision: bf16, or a larger machine"
    return PrerequisiteError(message, code="memory", where=str(folder), hint=hint)
