"""A cell's stages, one after another. Each finished stage leaves a patch against the base model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine import checkpoint, patch
from ..engine.loop import StageJob, run_stage
from ..engine.objective import Scalars
from ..plugins import blame, load_target
from ..specs import ObjectiveSpec, Train
from .services import StageServices

if TYPE_CHECKING:
    from ..plugins import Catalog
    from ..runner.progress import Progress
    from ..store import CellDir, RunDir
    from ..study import Cell
    from .inputs import Inputs
    from .loaded import LoadedModel


def train_cell(
    cell: Cell,
    cell_dir: CellDir,
    catalog: Catalog,
    run: RunDir,
    progress: Progress,
    inputs: Inputs,
    loaded: LoadedModel,
) -> bool:
    """Leave the cell's unlearned weights in `loaded`. False when a stop was asked for (all is saved)."""
    if not cell.stages:
        return True
    if cell_dir.patch_path.exists():
        loaded.originals |= patch.apply(cell_dir.patch_path, loaded.model)
        return True
    first = _restore_finished_stages(cell, cell_dir, loaded)
    for index in range(first, len(cell.stages)):
        job, name = _job(cell, index, cell_dir, catalog, run, progress, inputs, loaded)
        progress.begin(name, job.train.steps)
        cell_dir.set_status(stage=index)
        result = run_stage(loaded.model, loaded.tokenizer, job)
        cell_dir.write_cost(index, result.cost.to_json())
        if result.stopped:
            return False
        for tensor_name, tensor in result.original.items():
            loaded.originals.setdefault(tensor_name, tensor)
        if result.collapse:
            cell_dir.set_status(collapse={**cell_dir.status.get("collapse", {}), str(index): dict(result.collapse)})
        if result.closing:
            cell_dir.append_scalars(index, job.train.steps, result.closing)
        last = index == len(cell.stages) - 1
        target = cell_dir.patch_path if last else _stage_patch(cell_dir, index)
        patch.save(target, loaded.model, loaded.originals, _provenance(cell))
        progress.end()
    checkpoint.clear(cell_dir.checkpoints)
    for index in range(len(cell.stages) - 1):
        _stage_patch(cell_dir, index).unlink(missing_ok=True)
    return True


def _stage_patch(cell_dir: CellDir, index: int) -> Path:
    return Path(cell_dir.checkpoints) / f"stage{index}.safetensors"


def _restore_finished_stages(cell: Cell, cell_dir: CellDir, loaded: LoadedModel) -> int:
    """Apply the patch of the last finished stage; returns the stage to go on with."""
    for index in reversed(range(len(cell.stages) - 1)):
        if (path := _stage_patch(cell_dir, index)).exists():
            loaded.originals |= patch.apply(path, loaded.model)
            return index + 1
    return 0


def _job(
    cell: Cell,
    index: int,
    cell_dir: CellDir,
    catalog: Catalog,
    run: RunDir,
    progress: Progress,
    inputs: Inputs,
    loaded: LoadedModel,
) -> tuple[StageJob, str]:
    stage = cell.stages[index]
    entry = catalog.find("objective", stage["use"])
    spec = entry.spec
    assert isinstance(spec, ObjectiveSpec)
    with blame(entry):
        objective = load_target(spec.load)(spec.config(**stage["with"]))
    train = Train(**stage["train"])

    def on_step(step: int, scalars: Scalars) -> None:
        cell_dir.append_scalars(index, step, scalars)
        cell_dir.set_status(step=step + 1)
        catalog.notify("on_scalars", cell=cell.to_json(), step=step, scalars=scalars)
        progress.update(step + 1, scalars)

    job = StageJob(
        index=index,
        objective=objective,
        train=train,
        required_roles=spec.roles,
        examples=inputs.roles,
        seed=cell.seed,
        artifacts=Path(cell_dir.artifacts) / f"stage{index}",
        checkpoints=Path(cell_dir.checkpoints),
        services=StageServices(cell, index, run, loaded, progress),
        on_step=on_step,
        should_stop=progress.stop_requested,
        on_resume=lambda step: cell_dir.truncate_scalars(index, step),
        guard=lambda: blame(entry),
    )
    return job, spec.name


def _provenance(cell: Cell) -> dict[str, Any]:
    keys = ("id", "problem", "model", "arm", "seed", "model_ref", "stages", "precision", "plugins")
    whole = cell.to_json()
    return {key: whole[key] for key in keys}
