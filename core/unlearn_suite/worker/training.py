"""A cell's stages, one after another. Each finished stage leaves a patch against the base model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine import checkpoint, patch
from ..engine.distributed import here, launched
from ..engine.loop import StageJob, run_stage
from ..engine.needs import needed_parameters, with_watchers
from ..engine.objective import Objective, Scalars
from ..engine.shape import ModelShape
from ..evaluate.reference import let_go
from ..plugins import Entry, blame, load_target
from ..specs import ObjectiveSpec, Train
from .loaded import chat_of
from .services import StageServices
from .shelves import stage_shelf
from .watching import StageMetrics
from .work import Work

if TYPE_CHECKING:
    from ..models.load import Choose
    from ..plugins import Catalog
    from ..runner.progress import Progress
    from ..store import CellDir
    from ..study import Cell
    from .loaded import LoadedModel


def train_cell(work: Work) -> bool:
    """Leave the cell's unlearned weights in the loaded model. False when a stop was asked for (all is saved).

    Of several processes only the lead writes.
    """
    cell, cell_dir, loaded, progress = work.cell, work.cell_dir, work.loaded, work.progress
    if not cell.stages:
        return True
    lead = here().lead
    if cell_dir.patch_path.exists():
        _apply(cell_dir.patch_path, loaded, progress)
        if lead:
            _clear(cell_dir, len(cell.stages))  # a kill may have come between the patch and this
        return True
    let_go(loaded.model)
    first = _first_stage(cell, cell_dir)
    if first:
        _apply(_stage_patch(cell_dir, first - 1), loaded, progress)
    for index in range(first, len(cell.stages)):
        _bring_for_stage(work, index)
        job, name = _job(work, index)
        progress.begin(name, job.train.steps)
        cell_dir.set_status(stage=index)
        result = run_stage(loaded.model, loaded.tokenizer, job, loaded.device)
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
        if lead:
            patch.save(target, loaded.model, loaded.originals, provenance(cell))
        progress.end()
    if lead:
        _clear(cell_dir, len(cell.stages))
    return True


def _clear(cell_dir: CellDir, stages: int) -> None:
    """The patch holds the result: what led to it goes."""
    checkpoint.clear(cell_dir.checkpoints)
    for index in range(stages - 1):
        _stage_patch(cell_dir, index).unlink(missing_ok=True)


def _stage_patch(cell_dir: CellDir, index: int) -> Path:
    return Path(cell_dir.checkpoints) / f"stage{index}.safetensors"


def _first_stage(cell: Cell, cell_dir: CellDir) -> int:
    """The stage to go on with: the one after the last that left its patch."""
    finished = (index for index in range(len(cell.stages) - 1) if _stage_patch(cell_dir, index).exists())
    return max(finished, default=-1) + 1


def _apply(path: Path, loaded: LoadedModel, progress: Progress) -> None:
    loaded.bring(patch.names(path), progress)
    loaded.originals |= patch.apply(path, loaded.model)


def is_under_way(cell: Cell, cell_dir: CellDir) -> bool:
    """Whether a patch on disk holds the weights that training goes on with, or that it has ended with."""
    return cell_dir.patch_path.exists() or _first_stage(cell, cell_dir) > 0


def first_needs(cell: Cell, cell_dir: CellDir, catalog: Catalog) -> Choose | None:
    """What the first stage that is to be run needs of the model; None when there is none, or none that runs alone."""
    if not cell.stages or cell_dir.patch_path.exists() or launched() > 1:
        return None
    return _stage_needs(cell, _first_stage(cell, cell_dir), catalog)


def _stage_needs(cell: Cell, index: int, catalog: Catalog) -> Choose:
    def choose(shape: ModelShape) -> frozenset[str] | None:
        objective, entry = _objective(cell, index, catalog)
        with blame(entry):
            needs = objective.requirements(shape)
        return needed_parameters(shape, with_watchers(needs, Train(**cell.stages[index]["train"])))

    return choose


def _bring_for_stage(work: Work, index: int) -> None:
    absent = work.loaded.absent
    if absent is None:
        return
    work.loaded.bring(_stage_needs(work.cell, index, work.catalog)(absent.shape), work.progress)
    use = work.cell.stages[index]["use"]

    def told(path: str) -> None:
        work.progress.warn(f"{use} runs {path}, which its requirements do not name: it is loaded now")

    absent.on_demand = told


def _objective(cell: Cell, index: int, catalog: Catalog) -> tuple[Objective[Any], Entry]:
    stage = cell.stages[index]
    entry = catalog.find("objective", stage["use"])
    spec = entry.spec
    assert isinstance(spec, ObjectiveSpec)
    with blame(entry):
        return load_target(spec.load)(spec.config(**stage["with"])), entry


def _job(work: Work, index: int) -> tuple[StageJob, str]:
    cell, cell_dir, loaded, progress = work.cell, work.cell_dir, work.loaded, work.progress
    objective, entry = _objective(cell, index, work.catalog)
    spec = entry.spec
    assert isinstance(spec, ObjectiveSpec)
    train = Train(**cell.stages[index]["train"])
    lead = here().lead

    def on_step(step: int, scalars: Scalars) -> None:
        if not lead:
            return
        cell_dir.append_scalars(index, step, scalars)
        cell_dir.set_status(step=step + 1)
        work.catalog.notify("on_scalars", cell=cell.to_json(), step=step, scalars=scalars)
        progress.update(step + 1, scalars)

    job = StageJob(
        index=index,
        objective=objective,
        train=train,
        required_roles=spec.roles_for(objective.config),
        examples={role: work.inputs.roles[role] for role in cell.training["data"]},
        seed=cell.seed,
        artifacts=Path(cell_dir.artifacts) / f"stage{index}",
        checkpoints=Path(cell_dir.checkpoints),
        services=StageServices(cell, index, work.run, loaded, progress),
        on_step=on_step,
        should_stop=progress.stop_requested,
        on_resume=lambda step: cell_dir.truncate_scalars(index, step),
        guard=lambda: blame(entry),
        shelf=stage_shelf(cell, index, work.run, loaded),
        chat=chat_of(cell, loaded.tokenizer),
        metrics=StageMetrics(work),
    )
    return job, spec.name


def provenance(cell: Cell) -> dict[str, Any]:
    """What a patch says of the cell that it was made for."""
    keys = ("id", "problem", "model", "arm", "seed", "model_ref", "start", "stages", "precision", "plugins")
    whole = cell.to_json()
    return {key: whole[key] for key in keys}
