"""The metrics of a cell's problem as detectors see them while a stage trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from torch import Tensor, nn

from ..engine.diagnostics import Entry
from ..engine.distributed import here
from ..errors import PluginError
from ..evaluate.score import score_entry
from ..plugins import blame
from ..specs import Example, ValueSpec
from .scoring import asked, eval_model
from .work import Interrupted, Work


class StageMetrics:
    """`engine.diagnostics.Metrics` of one cell."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._entries = {entry["name"]: entry for entry in work.cell.metrics}

    def entry(self, name: str) -> Entry:
        entry = self._entries[name]
        values = {value: ValueSpec(**spec) for value, spec in entry["values"].items()}
        return Entry(entry["key"], entry["want"], entry["show"], values)

    def rows(self, name: str, examples: int | None, originals: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """A metric that fails ends no training: it is told of, and fails when the cell is scored. Raises `Interrupted`
        when a stop is asked for."""
        work, entry = self._work, self._entries[name]
        work.loaded.bring(None, work.progress)
        published = _as_named(work.loaded.model, {**originals, **work.loaded.originals})
        found, spec, metric, all_examples = asked(entry, work)
        chosen = _first(all_examples, examples)
        work.progress.begin(f"scoring {name}", len(chosen) or None)
        try:
            rows = score_entry(
                entry,
                metric,
                eval_model(work.cell, work.loaded, published),
                chosen,
                work.cell.seed,
                spec=spec,
                done=self._done,
                guard=lambda: blame(found),
            )
        except PluginError as error:
            work.progress.warn(f"not scored while training: {error}")
            rows = []
        work.progress.end()
        return [{key: value for key, value in asdict(row).items() if key != "sample"} for row in rows]

    def _done(self, done: int, _: int) -> None:
        """As with sampling: among several processes, which go in step, a requested stop waits."""
        self._work.progress.update(done)
        if self._work.progress.stop_requested() and here().size == 1:
            raise Interrupted


def _first(examples: Sequence[Example], count: int | None) -> Sequence[Example]:
    """The first by hash, in the order of the data."""
    if count is None or count >= len(examples):
        return examples
    chosen = set(sorted((e.id for e in examples), key=lambda one: sha256(one.encode()).digest())[:count])
    return [e for e in examples if e.id in chosen]


def _as_named(model: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the names that parameters have now: a matrix with an adapter lies inside a layer of the adapter's."""
    names = dict(model.named_parameters())
    inside = {name.replace(".base_layer.", "."): name for name in names if ".base_layer." in name}
    return {inside.get(name, name): value for name, value in values.items()}
