"""Score one metric entry: call the metric, part by part where it may be, and check everything it hands back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..errors import PlanError, PluginError, SuiteError
from ..specs import Example, MetricSpec
from .metric import Metric, Row
from .model import EvalModel

PART = 256
"""examples that are scored and kept together; fixed, so that an interrupted scoring ends with the same bits"""

Kept = Callable[[list[Row], int], None]


def score_entry(
    entry: Mapping[str, Any],
    metric: Metric[Any],
    model: EvalModel,
    examples: Sequence[Example],
    seed: int,
    *,
    spec: MetricSpec | None = None,
    done: Callable[[int, int], None] | None = None,
    guard: Callable[[], AbstractContextManager[Any]] = nullcontext,
    known: tuple[Sequence[Row], int] = ((), 0),
    keep: Kept | None = None,
) -> list[Row]:
    """All rows of one metric entry of a cell (cell.json's form: name, use, with, data ...).

    `known` are rows that an earlier process has kept, and how many examples they cover; `keep(rows, covered)` is
    called after every part but the last. `done(scored, total)` counts examples while the model works; `guard` wraps
    the metric's code, so that what it raises can be told with its own file and line. Raises `PluginError` naming the
    metric for rows that break its spec (values that are not finite or not declared, ids that are repeated or not
    those of the examples) and for any exception in its code; a `SuiteError` of the metric passes, with the entry as
    its place.
    """
    where = f"{entry['use']} ({entry['name']})"
    if spec is not None and spec.needs_data and not examples:
        raise PlanError(f"metric {entry['name']!r} has no examples", code="no-examples", where=where)
    rows = list(known[0])
    for start, part in _parts(examples, known[1], spec):
        model.first = start
        model.progress = _scaled(done, start, len(part), len(examples))
        try:
            with guard():
                new = list(metric.score(model, part, seed))
        except SuiteError as error:
            error.where = error.where or where
            raise
        except Exception as error:
            raise PluginError(
                f"metric {entry['name']!r} failed: {type(error).__name__}: {error}",
                code="metric-failed",
                where=where,
                hint="run again with --debug to see where, and report it to the plugin's author",
            ) from error
        finally:
            model.progress, model.first = None, 0
        rows += new
        if keep and start + len(part) < len(examples):
            keep(new, start + len(part))
    problem = check_rows(rows, spec, examples)
    if problem:
        raise PluginError(
            f"metric {entry['name']!r} {problem}",
            code="metric-rows",
            where=where,
            hint="report it to the plugin's author",
        )
    if done:
        done(len(examples), len(examples))
    return rows


def check_rows(rows: Sequence[Row], spec: MetricSpec | None, examples: Sequence[Example]) -> str:
    """What is wrong with a metric's rows ("" if nothing).

    A metric may leave out examples but not change their order; `spec` None checks no value names.
    """
    if not rows:
        return "returned no rows"
    ids = [row.id for row in rows]
    if len(set(ids)) < len(ids):
        return f"returned two rows for {next(i for i in ids if ids.count(i) > 1)!r}"
    wrong = next((fault for row in rows if (fault := _check_row(row, spec))), "")
    if wrong or (spec is not None and not spec.needs_data):
        return wrong
    return _check_ids(ids, examples) if examples else ""


def _check_row(row: Row, spec: MetricSpec | None) -> str:
    if not row.values:
        return f"returned no values for {row.id!r}"
    undeclared = sorted(set(row.values) - set(spec.values)) if spec else []
    if undeclared:
        return f"returned a value {undeclared[0]!r} that its spec does not declare"
    for name, value in (*row.values.items(), ("weight", row.weight)):
        if not math.isfinite(value):
            return f"returned {name} = {value} for {row.id!r}"
    return f"returned a negative weight for {row.id!r}" if row.weight < 0 else ""


def _check_ids(ids: Sequence[str], examples: Iterable[Example]) -> str:
    order = {example.id: place for place, example in enumerate(examples)}
    places = []
    for row_id in ids:
        if row_id not in order:
            return f"returned a row {row_id!r} that is no example"
        places.append(order[row_id])
    return "" if places == sorted(places) else "returned rows that are not in the order of the examples"


def _parts(examples: Sequence[Example], start: int, spec: MetricSpec | None) -> Iterator[tuple[int, Sequence[Example]]]:
    """(number of the first example, examples) of each part that is not scored yet."""
    size = PART if spec is not None and spec.by_example else max(len(examples), 1)
    for at in range(start, max(len(examples), 1), size):
        yield at, examples[at : at + size]


def _scaled(
    done: Callable[[int, int], None] | None, start: int, part: int, examples: int
) -> Callable[[int, int], None] | None:
    """The model counts sequences; the display counts examples."""
    if done is None:
        return None
    return lambda scored, whole: done(start + scored * part // max(whole, 1), examples)
