"""What other cells of a run have made already. Whoever adds a metric or an attack to a plan, or calls an arm by another
name, has other cells; where their training is that of finished ones, they end with the same weights and scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engine import patch
from ..study import Cell, attacked
from .scoring import tell_scores
from .training import provenance
from .work import Work

if TYPE_CHECKING:
    from ..store import CellDir, RunDir


def take_over_training(cell: Cell, cell_dir: CellDir, run: RunDir) -> str:
    """Copy the weights, curve, cost and artifacts of a cell that was trained on the same; the folder of that cell, or
    "" when there is none or nothing to take. The patch comes last: with it this cell has been trained."""
    if cell_dir.patch_path.exists():
        return ""
    twin = next((other for other in run.twins(cell.to_json()) if other.patch_path.exists()), None)
    if twin is None:
        if cell_dir.status.get("trained_by"):  # whose patch has gone since, as this cell's own has
            cell_dir.set_status(trained_by=None)
        return ""
    cell_dir.copy_training(twin)
    patch.copy(twin.patch_path, cell_dir.patch_path, provenance(cell))
    return twin.path.name


def take_over_scores(work: Work) -> None:
    """Copy what is scored already of the same weights in the same way, of the cell itself and under attack."""
    cell_dir, own = work.cell_dir, _scored(work.cell)
    for twin in work.run.twins(work.cell.to_json()):
        theirs = {key: name for name, key in _scored(Cell.from_json(twin.cell)).items()}
        for name, key in own.items():
            if key in theirs and not cell_dir.has_scores(name) and twin.has_scores(theirs[key]):
                cell_dir.copy_scores(name, twin, theirs[key])
                tell_scores(name, work)


def _scored(cell: Cell) -> dict[str, tuple[str, ...]]:
    """{name of scores: what they are a function of, beside the weights}."""
    keys = {entry["name"]: entry["key"] for entry in cell.metrics if not entry["combines"]}
    found: dict[str, tuple[str, ...]] = {name: (key,) for name, key in keys.items()}
    for attack in cell.attacks:
        for one in attacked([attack]):
            found[one.name] = (keys[one.metric], attack["key"], one.point.name)
    return found
