"""A cell's metric entries. The untouched model's scores are computed once and shared by all cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..evaluate.memory import ScoreMemory
from ..evaluate.metric import Row
from ..evaluate.model import EvalModel
from ..evaluate.score import score_entry
from ..plugins import blame, load_target
from ..specs import MetricSpec
from .loaded import chat_of

if TYPE_CHECKING:
    from ..plugins import Catalog
    from ..runner.progress import Progress
    from ..store import CellDir, RunDir
    from ..study import Cell
    from .inputs import Inputs
    from .loaded import LoadedModel

Rows = Sequence[Mapping[str, Any]]


class Stopped(Exception):
    """A stop was asked for between two parts of an entry; what is scored is kept."""


def score_cell(
    cell: Cell,
    cell_dir: CellDir,
    catalog: Catalog,
    run: RunDir,
    progress: Progress,
    inputs: Inputs,
    loaded: LoadedModel,
) -> bool:
    """Score what is not scored yet. False when a stop was asked for before the end.

    The entries share one pass of the model: what one of them has asked is not computed again for another.
    """
    model = eval_model(cell, loaded)
    for entry in cell.metrics:
        if entry["combines"] or cell_dir.has_scores(entry["name"]):
            continue
        if progress.stop_requested():
            return False
        loaded.bring(None, progress)
        try:
            if cell.is_base:  # the keys of a control's entries name the scores of what it is compared with
                with run.shared_lock(entry["key"]):
                    if not cell_dir.copy_shared(entry["name"], entry["key"]):
                        score_as(entry["name"], entry, cell, cell_dir, catalog, progress, inputs, model)
                        cell_dir.publish_shared(entry["name"], entry["key"])
            else:
                score_as(entry["name"], entry, cell, cell_dir, catalog, progress, inputs, model)
        except Stopped:
            return False
        catalog.notify(
            "on_scores", cell=cell.to_json(), metric=entry["name"], rows=list(cell_dir.scores(entry["name"]))
        )
    return True


def eval_model(cell: Cell, loaded: LoadedModel) -> EvalModel:
    """The model as it is now, for a cell's metrics; with a memory of its own, so only while no weight moves."""
    return EvalModel(
        loaded.model,
        loaded.tokenizer,
        device=loaded.device,
        batch_tokens=int(cell.compute.get("eval_tokens") or 2048),
        memory=ScoreMemory(),
        originals=loaded.originals,
        chat=chat_of(cell, loaded.tokenizer),
    )


def score_as(
    name: str,
    entry: Mapping[str, Any],
    cell: Cell,
    cell_dir: CellDir,
    catalog: Catalog,
    progress: Progress,
    inputs: Inputs,
    model: EvalModel,
) -> None:
    """Score a metric entry and write its rows as `name`. Raises `Stopped`; what is scored is kept."""
    found = catalog.find("metric", entry["use"])
    spec = found.spec
    assert isinstance(spec, MetricSpec)
    with blame(found):
        metric = load_target(spec.load)(spec.config(**entry["with"]))
    examples = inputs.roles[entry["data"]] if entry.get("data") else ()
    progress.begin(f"scoring {name}", len(examples) or None)

    def keep(rows: list[Row], covered: int) -> None:
        cell_dir.keep_rows(name, [asdict(row) for row in rows], covered)
        if progress.stop_requested():
            raise Stopped

    kept, covered = cell_dir.kept_rows(name)
    rows = score_entry(
        entry,
        metric,
        model,
        examples,
        cell.seed,
        spec=spec,
        done=lambda done, _: progress.update(done),
        guard=lambda: blame(found),
        known=([Row(**row) for row in kept], covered),
        keep=keep,
    )
    cell_dir.write_scores(name, [asdict(row) for row in rows])
    progress.end()
