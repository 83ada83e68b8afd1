"""The model in memory: loaded once per process, lent to one cell after another, always given back as it was."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import models
from ..engine.distributed import device_of_process, launched
from ..errors import PrerequisiteError
from ..models.chat import ChatTemplate
from ..study import canonical

if TYPE_CHECKING:
    from ..models.absent import Absent
    from ..models.load import Choose
    from ..runner.progress import Progress
    from ..study import Cell

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class LoadedModel:
    """`originals`: base values of every tensor that has been changed since the model was lent. `absent`: what
    is not in memory, None when the model is whole. `device`: where it computes; one of several processes keeps
    it in the CPU's memory until its stages spread it. `kept`: what the model that the last cell began with computed for
    the examples of its first stage, for the next cells that begin with the same."""

    model: Any
    tokenizer: Any
    device: torch.device
    absent: Absent | None = None
    originals: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def bring(self, names: Collection[str] | None, progress: Progress) -> None:
        """Have these parameters (None: all) in memory. Raises `PrerequisiteError` when they do not fit."""
        if self.absent is None:
            return
        if names is not None:
            self.absent.bring(names)
        elif self.absent.names:
            progress.begin("loading the rest of the model", None)
            self.absent.bring()
            progress.end()

    def memory_of(self, weights: str) -> dict[str, Tensor]:
        """The kept values of a state of the weights; those of another one go."""
        if weights not in self.kept:
            self.kept = {weights: {}}
        return self.kept[weights]

    def change(self, values: Mapping[str, Tensor]) -> None:
        """Put these values on the model, the base values noted."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in values.items():
                self.originals.setdefault(name, parameters[name].detach().clone())
                parameters[name].copy_(value)

    def restore(self) -> None:
        """Put the base weights back, bit for bit."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in self.originals.items():
                parameters[name].copy_(tensor)
                parameters[name].grad = None
        self.originals.clear()


_held: dict[str, LoadedModel] = {}


@contextmanager
def borrowed_model(cell: Cell, progress: Progress, choose: Choose | None = None) -> Iterator[LoadedModel]:
    """The cell's base model. Another model than the last one replaces it in memory.

    `choose` tells from the model's shape which parameters are needed at first (None: all). A model that is in
    memory is lent as it is: `LoadedModel.bring` adds to it.
    """
    loaded = _load(cell, progress, choose)
    try:
        yield loaded
    finally:
        loaded.restore()


def _load(cell: Cell, progress: Progress, choose: Choose | None) -> LoadedModel:
    if threads := cell.compute.get("threads"):
        torch.set_num_threads(int(threads))
    device = device_of(cell)
    key = canonical([cell.model_ref, cell.precision, str(device)])
    if key not in _held:
        _held.clear()
        dtype = DTYPES[cell.precision]
        place = torch.device("cpu") if launched() > 1 else device
        model, tokenizer, absent = models.load_part(cell.model_ref, dtype, place, choose, say=progress.say)
        _held[key] = LoadedModel(model, tokenizer, device, absent)
    return _held[key]


def chat_of(cell: Cell, tokenizer: Any) -> ChatTemplate | None:
    """How the cell's prompts become turns of the user; None where they are plain text. Raises `PrerequisiteError`."""
    return ChatTemplate(tokenizer) if cell.chat else None


def device_of(cell: Cell) -> torch.device:
    """Where a cell runs. Raises `PrerequisiteError` for a GPU that is not there."""
    name = str(cell.compute.get("device", "auto"))
    if name == "cuda" and not torch.cuda.is_available():
        raise PrerequisiteError(
            "the plan asks for cuda and torch finds no CUDA device",
            code="device",
            where="compute.device",
            hint="set compute.device to auto or cpu, or install a CUDA build of torch",
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return device_of_process(name) if launched() > 1 else torch.device(name)
