"""A cell's metric entries. The untouched model's scores are computed once and shared by all cells."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..evaluate.memory import ScoreMemory
from ..evaluate.metric import Metric, Row
from ..evaluate.model import EvalModel
from ..evaluate.score import score_entry
from ..plugins import Entry, blame, load_target
from ..specs import Example, MetricSpec
from .loaded import chat_of
from .work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from ..study import Cell
    from .loaded import LoadedModel

Rows = Sequence[Mapping[str, Any]]


class Stopped(Exception):
    """A stop was asked for between two parts of an entry; what is scored is kept."""


def score_cell(work: Work) -> bool:
    """Score what is not scored yet. False when a stop was asked for before the end.

    The entries share one pass of the model: what one of them has asked is not computed again for another.
    """
    cell_dir = work.cell_dir
    model = eval_model(work.cell, work.loaded, work.loaded.originals)
    for entry in work.cell.metrics:
        name = entry["name"]
        if entry["combines"] or cell_dir.has_scores(name):
            continue
        if work.progress.stop_requested():
            return False
        work.loaded.bring(None, work.progress)
        try:
            if work.cell.is_base:  # the keys of a control's entries name the scores of what it is compared with
                with work.run.shared_lock(entry["key"]):
                    if not cell_dir.copy_shared(name, entry["key"]):
                        score_as(name, entry, work, model)
                        cell_dir.publish_shared(name, entry["key"])
            else:
                score_as(name, entry, work, model)
        except Stopped:
            return False
        tell_scores(name, work)
    return True


def tell_scores(name: str, work: Work) -> None:
    """Tell the plugins that observe a run what an entry has come to."""
    rows = list(work.cell_dir.scores(name))
    work.catalog.notify("on_scores", cell=work.cell.to_json(), metric=name, rows=rows)


def eval_model(cell: Cell, loaded: LoadedModel, published: MutableMapping[str, Tensor]) -> EvalModel:
    """The model as it is now, for a cell's metrics; with a memory of its own, so only while no weight moves.
    `published`: the published values of all that is another one now."""
    return EvalModel(
        loaded.model,
        loaded.tokenizer,
        device=loaded.device,
        batch_tokens=int(cell.compute.get("eval_tokens") or 2048),
        memory=ScoreMemory(),
        originals=published,
        chat=chat_of(cell, loaded.tokenizer),
    )


def asked(entry: Mapping[str, Any], work: Work) -> tuple[Entry, MetricSpec, Metric[Any], Sequence[Example]]:
    """A metric entry's plugin, its spec, the metric itself, and the examples that it is asked."""
    found = work.catalog.find("metric", entry["use"])
    spec = found.spec
    assert isinstance(spec, MetricSpec)
    with blame(found):
        metric = load_target(spec.load)(spec.config(**entry["with"]))
    return found, spec, metric, work.inputs.roles[entry["data"]] if entry.get("data") else ()


def score_as(name: str, entry: Mapping[str, Any], work: Work, model: EvalModel) -> None:
    """Score a metric entry and write its rows as `name`. Raises `Stopped`; what is scored is kept."""
    cell_dir, progress = work.cell_dir, work.progress
    found, spec, metric, examples = asked(entry, work)
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
        work.cell.seed,
        spec=spec,
        done=lambda done, _: progress.update(done),
        guard=lambda: blame(found),
        known=([Row(**row) for row in kept], covered),
        keep=keep,
    )
    cell_dir.write_scores(name, [asdict(row) for row in rows])
    progress.end()
