"""A safetensors file by byte ranges: one tensor in memory at a time, none that is not asked for, no mapped pages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import PrerequisiteError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: `code` its dtype as the format writes it, `start` and `size` in bytes of the file."""

    code: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def dtype(self) -> torch.dtype | None:
        """None for a dtype that no parameter is trained in (8-bit floats, say)."""
        return DTYPES.get(self.code)


class TensorFile:
    """The header of a safetensors file, and its tensors when they are read."""

    def __init__(self, path: Path) -> None:
        """Raises `PrerequisiteError` when the file is missing, damaged or too short."""
        self.path = path
        try:
            with safe_open(path, framework="numpy"):
                pass  # checks the header, and the length of the file against it
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
        except (OSError, SafetensorError, ValueError) as error:
            message = f"the tensors cannot be read: {error}"
            hint = "check the path; if it is right the file is damaged: make or download it again"
            raise PrerequisiteError(message, code="tensors", where=str(path), hint=hint) from error
        self.metadata: Mapping[str, str] = header.pop("__metadata__", None) or {}
        ranges = {name: (8 + length + a, 8 + length + b) for name, (a, b) in _offsets(header).items()}
        self.entries: Mapping[str, Entry] = {
            name: Entry(about["dtype"], tuple(about["shape"]), ranges[name][0], ranges[name][1] - ranges[name][0])
            for name, about in sorted(header.items(), key=lambda item: ranges[item[0]])
        }

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own. Raises KeyError, and `PrerequisiteError` for an exotic dtype."""
        entry = self.entries[name]
        if entry.dtype is None:
            message = f"{name} has dtype {entry.code}, which is not one that weights are trained in"
            raise PrerequisiteError(message, code="dtype", where=str(self.path), hint="take an unquantised model")
        if not math.prod(entry.shape):
            return torch.empty(entry.shape, dtype=entry.dtype)
        buffer = bytearray(entry.size)
        with self.path.open("rb") as file:
            file.seek(entry.start)
            file.readinto(buffer)
        return torch.frombuffer(buffer, dtype=entry.dtype).view(entry.shape)


def _offsets(header: Mapping[str, Mapping[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    return {name: (about["data_offsets"][0], about["data_offsets"][1]) for name, about in header.items()}


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor as the format stores them, without a copy."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
