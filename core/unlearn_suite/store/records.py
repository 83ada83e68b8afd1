"""All scores of a run as one table: a row per cell, metric entry, example and value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..study import attacked
from .atomic import replacing
from .cell_dir import CellDir
from .run_dir import RunDir

if TYPE_CHECKING:
    import pyarrow as pa

WORDS = ("run", "cell", "problem", "model", "arm", "metric", "use", "value", "example", "group", "unit")
COLUMNS = (*WORDS[:5], "seed", *WORDS[5:], "weight", "score")


def write_records(run: RunDir, cells: Collection[str] | None = None) -> Path:
    """Write results/records.parquet from every score that is on disk, finished cell or not, and return its path.

    `cells`: only cells with these folder names (None: all that the run holds). Words are dictionary-encoded, `seed`
    is int64, `weight` and `score` are float64 (a score may be NaN).
    """
    import pyarrow.parquet as pq

    path = run.path / "results" / "records.parquet"
    tables = [_table(run, cell_dir) for cell_dir in run.cells() if cells is None or cell_dir.path.name in cells]
    table = _concat(tables)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def read_records(path: Path) -> pa.Table:
    """The table that `write_records` wrote."""
    import pyarrow.parquet as pq

    return pq.read_table(path)


def _schema() -> pa.Schema:
    import pyarrow as pa

    word = pa.dictionary(pa.int32(), pa.string())
    types: Mapping[str, Any] = {"seed": pa.int64(), "weight": pa.float64(), "score": pa.float64()}
    return pa.schema([(name, types.get(name, word)) for name in COLUMNS])


def _concat(tables: list[pa.Table]) -> pa.Table:
    import pyarrow as pa

    whole = pa.concat_tables([_schema().empty_table(), *tables])
    return whole.unify_dictionaries().combine_chunks()


def _table(run: RunDir, cell_dir: CellDir) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for record in _records(run, cell_dir):
        for name, item in zip(COLUMNS, record, strict=True):
            columns[name].append(item)
    schema = _schema()
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(items: list[Any], kind: Any) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return pa.array(items, kind.value_type).dictionary_encode()
    return pa.array(items, kind)


def _records(run: RunDir, cell_dir: CellDir) -> Iterator[tuple[Any, ...]]:
    cell = cell_dir.cell
    head = (run.path.name, cell["id"], cell["problem"], cell["model"], cell["arm"], cell["seed"])
    uses = {entry["name"]: entry["use"] for entry in cell["metrics"]}
    under_attack = {one.name: uses[one.metric] for one in attacked(cell.get("attacks") or ())}
    for name, use in {**uses, **under_attack}.items():
        for row in cell_dir.scores(name):
            for value, score in row["values"].items():
                names = (name, use, value, row["id"], row["group"], row["unit"])
                yield (*head, *names, row["weight"], score)
