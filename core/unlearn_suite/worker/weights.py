"""What made the weights that a stage begins with: the names of all that a run keeps of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..models.identity import identity

if TYPE_CHECKING:
    from ..study import Cell


def made_of(cell: Cell, stage: int) -> dict[str, Any]:
    """Equal only if the weights at the beginning of the stage are."""
    made: dict[str, Any] = {"model": identity(cell.model_ref), "precision": cell.precision}
    if cell.start["from"] != "original":
        made["start"] = cell.start.get("key") or ["random", cell.seed]
    if stage:
        made["stages"] = cell.stages[:stage]
        made |= {"seed": cell.seed, "data": cell.data, "plugins": cell.plugins, "chat": cell.chat}
    return made
