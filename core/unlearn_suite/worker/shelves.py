"""Where the stages of a run keep what their base model computes: in this process, or below the run's `shared/kept`.

Cells that begin with the same weights read the same values. The folder of one state of the weights is named by
all that the values depend on, so nothing in it is ever out of date. `shared/kept` goes when a command ends with
every cell done; after an interruption or a failure it stays for the next command. It may be deleted at any time
between commands.
"""

from __future__ import annotations

import zlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
import transformers

from ..engine.shelf import Shelf
from ..study import digest
from .weights import made_of

if TYPE_CHECKING:
    from ..store import RunDir
    from ..study import Cell
    from .loaded import LoadedModel

_LOCKS = 16


def stage_shelf(cell: Cell, stage: int, run: RunDir, loaded: LoadedModel) -> Shelf:
    """The shelf of a stage. The first stages of all cells of a model share theirs in memory while it is loaded."""
    name = digest(_weights(cell, stage, loaded), 20)

    def lock(file: str) -> AbstractContextManager[Any]:
        return run.shared_lock(f"kept-{zlib.crc32(file.encode()) % _LOCKS}")

    memory = loaded.memory_of(name) if stage == 0 else {}
    return Shelf(memory=memory, folder=run.kept / name, lock=lock)


def _weights(cell: Cell, stage: int, loaded: LoadedModel) -> dict[str, Any]:
    """Everything beside the token ids that decides the bits of an activation."""
    device = loaded.device
    return {
        **made_of(cell, stage),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "versions": [torch.__version__, transformers.__version__],
    }
