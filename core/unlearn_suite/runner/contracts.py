"""What the runner needs of the rooms it works with: a run on disk, a cell on disk, plugins that watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ..study import Cell

State = Literal["done", "failed", "interrupted"]

Execute = Callable[..., None]
"""execute(cell, cell_dir, catalog, run, progress): one cell from where it stands to its end. Raises `SuiteError`
for what the user can mend and KeyboardInterrupt after a requested stop."""


class CellStore(Protocol):
    """A cell's folder; `store.CellDir`."""

    path: Path

    @property
    def status(self) -> dict[str, Any]: ...
    @property
    def progress(self) -> dict[str, Any]: ...
    @property
    def process_error(self) -> dict[str, Any] | None: ...
    def set_status(self, **fields: Any) -> dict[str, Any]: ...
    def write_progress(self, progress: Mapping[str, Any]) -> None: ...
    def write_process_error(self, error: Mapping[str, Any] | None) -> None: ...
    def write_error(self, text: str) -> Path: ...
    def products(self) -> list[str]: ...
    def missing(self) -> list[str]: ...
    def lock(self) -> AbstractContextManager[None]: ...


class RunStore(Protocol):
    """A run directory; `store.RunDir`."""

    path: Path

    def cell_dir(self, cell: Cell) -> CellStore: ...
    def event(self, kind: str, **fields: Any) -> None: ...


class Notifier(Protocol):
    """Calls a hook of every plugin; `plugins.Catalog`."""

    def notify(self, hook_name: str, **arguments: Any) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How a cell ended. `error`: code, message, where, hint and exit (the code of a run where all ends so)."""

    cell: Cell
    state: State
    error: Mapping[str, Any] | None = None

    @property
    def message(self) -> str:
        """The error in one line; "" when there is none."""
        if not self.error:
            return ""
        where, hint = self.error.get("where", ""), self.error.get("hint", "")
        place = f"{where}: " if where and where != self.cell.folder else ""
        return f"{place}{self.error['message']}" + (f" ({hint})" if hint else "")
