"""A model of which only a part is in memory: the rest is read when it is asked for, or when it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..engine.needs import on_whole
from ..engine.shape import ModelShape
from .folder import unusable
from .memory import check_memory, too_large
from .stored import Stored


class Absent:
    """The parameters of `model` that are on the meta device, and where their values lie.

    A block (or a module outside of the blocks) that is run without its parameters brings them in first, and
    `on_demand` is told its path: results never depend on what was brought in beforehand.
    """

    def __init__(self, model: nn.Module, stored: Mapping[str, Stored], folder: Path, device: torch.device) -> None:
        """`model`: all its parameters on the meta device, in the dtype they are wanted in."""
        self.model = model
        self.folder = folder
        self.device = device
        self.on_demand: Callable[[str], None] = lambda path: None
        self._stored = dict(stored)
        self._stamps = {place.file.path: _stamp(place.file.path) for place in stored.values()}
        self.shape = ModelShape.of(model)
        on_whole(model, self.bring)
        self._hooks: dict[str, RemovableHandle] = {}
        for path in {self._unit(name) for name in stored}:
            hook = partial(self._before_run, path)
            self._hooks[path] = model.get_submodule(path).register_forward_pre_hook(hook)

    @property
    def names(self) -> frozenset[str]:
        """Parameters that are not in memory."""
        return frozenset(self._stored)

    def bring(self, names: Iterable[str] | None = None) -> None:
        """Read these parameters (None: all) where they are not there yet; other names mean nothing.

        Raises `PrerequisiteError` when they do not fit, or the files have been changed or removed.
        """
        wanted = self._stored.keys() if names is None else self._stored.keys() & set(names)
        chosen = [name for name in self._stored if name in wanted]  # in the order of the files
        if not chosen:
            return
        parameters = dict(self.model.named_parameters())
        check_memory(self.folder, sum(parameters[name].nbytes for name in chosen), self.device)
        self._check_files({self._stored[name].file.path for name in chosen})
        slots = _slots(self.model)
        try:
            for name in chosen:
                _fill(slots[id(parameters[name])], parameters[name], self._read(name, parameters[name].dtype))
                del self._stored[name]
        except (MemoryError, torch.cuda.OutOfMemoryError) as error:
            raise too_large(self.folder, str(self.device)) from error
        except OSError as error:
            raise unusable(self.folder, f"a weight file cannot be read: {error}", "check the disk") from error
        self._drop_hooks()

    def _read(self, name: str, dtype: torch.dtype) -> Tensor:
        place = self._stored[name]
        return place.file.read(place.key).to(dtype).to(self.device)

    def _check_files(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if _stamp(path) != self._stamps[path]:
                message = f"{path.name} was changed or removed after a part of the model had been read from it"
                raise unusable(self.folder, message, "put the model back and run the same command again")

    def _unit(self, name: str) -> str:
        """The module before whose run a parameter must be there: its block, or outside of the blocks its owner."""
        block = self.shape.block_of(name)
        return name.rpartition(".")[0] if block is None else f"{self.shape.blocks_path}.{block}"

    def _before_run(self, path: str, *_: Any) -> None:
        if missing := [name for name in self._stored if self._unit(name) == path]:
            self.on_demand(path)
            self.bring(missing)

    def _drop_hooks(self) -> None:
        waiting = {self._unit(name) for name in self._stored}
        for path in self._hooks.keys() - waiting:
            self._hooks.pop(path).remove()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


Slots = list[tuple[nn.Module, str]]


def _slots(model: nn.Module) -> dict[int, Slots]:
    """Every place that a parameter has in the modules; tied ones have several."""
    slots: dict[int, Slots] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            slots.setdefault(id(parameter), []).append((module, name))
    return slots


def _fill(slots: Slots, placeholder: Tensor, value: Tensor) -> None:
    parameter = nn.Parameter(value, requires_grad=placeholder.requires_grad)
    for module, name in slots:
        setattr(module, name, parameter)
