"""What all parts of a cell's work share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..plugins import Catalog
    from ..runner.progress import Progress
    from ..store import CellDir, RunDir
    from ..study import Cell
    from .inputs import Inputs
    from .loaded import LoadedModel


class Interrupted(KeyboardInterrupt):
    """A stop was asked for and everything is saved."""


@dataclass(frozen=True)
class Work:
    """A cell under way: what it is, where it is written, and what it is computed with."""

    cell: Cell
    cell_dir: CellDir
    catalog: Catalog
    run: RunDir
    progress: Progress
    inputs: Inputs
    loaded: LoadedModel
