"""One cell on disk: what it is, how far it is, its curve, its scores, its patch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import PrerequisiteError
from .atomic import Json, append_jsonl, disk_errors, jsonl_bytes, read_json, read_jsonl, write_bytes, write_json

_SCORE_FIELDS = ("id", "group", "unit", "weight", "values")


class CellDir:
    """`cells/<folder>/` of a run. Any number may read it; one process at a time writes it (see `lock`)."""

    def __init__(self, path: Path, on_torn: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._on_torn = on_torn

    def __repr__(self) -> str:
        return f"CellDir({str(self.path)!r})"

    @property
    def patch_path(self) -> Path:
        return self.path / "patch.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    def beside(self, path: Path) -> CellDir:
        """Another folder that is written (or only read) as this one is."""
        return CellDir(path, self._on_torn)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Own the cell. Raises `PrerequisiteError` at once when another process does."""
        from filelock import FileLock, Timeout

        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self.path / ".lock", timeout=0).acquire()
        except Timeout:
            raise PrerequisiteError(
                "another process is working on this cell",
                code="cell-locked",
                where=str(self.path),
                hint="wait until it ends, or end it, then run the same command again",
            ) from None
        with lock:
            yield

    # --- what it is and how far it is

    @property
    def cell(self) -> Json:
        """The content of cell.json."""
        data: Json = read_json(self.path / "cell.json")
        return data

    def write_cell(self, cell: Mapping[str, Any]) -> None:
        """Write cell.json unless it says the same already."""
        path = self.path / "cell.json"
        if not path.exists() or read_json(path) != cell:
            write_json(path, dict(cell))

    @property
    def status(self) -> Json:
        """The content of status.json; {"state": "pending"} when there is none (or a power failure emptied it)."""
        try:
            data: Json = read_json(self.path / "status.json")
        except (FileNotFoundError, PrerequisiteError):
            return {"state": "pending"}
        return data

    def set_status(self, **fields: Any) -> Json:
        """Merge `fields` into status.json and return it whole."""
        status = {**self.status, **fields}
        # a step counter is written every step and may be lost with the power; a state may not
        write_json(self.path / "status.json", status, durable="state" in fields)
        return status

    @property
    def progress(self) -> Json:
        """What a worker process last told of its work; {} when there is none."""
        try:
            data: Json = read_json(self.path / "progress.json")
        except (FileNotFoundError, PrerequisiteError):
            return {}
        return data

    def write_progress(self, progress: Mapping[str, Any]) -> None:
        """For the parent process to show; nothing depends on it."""
        write_json(self.path / "progress.json", dict(progress), durable=False)

    def products(self) -> list[str]:
        """Relative paths of the files that make this cell's result: scores, samples, patch."""
        found = [
            *self.path.glob("scores/*.jsonl"),
            *self.path.glob("samples/*.jsonl"),
            *self.path.glob("*.safetensors"),
        ]
        return sorted(path.relative_to(self.path).as_posix() for path in found)

    def missing(self) -> list[str]:
        """Files that status.json lists as this cell's result and that are not there any more."""
        return [name for name in self.status.get("files", []) if not (self.path / name).exists()]

    def drop_patch(self) -> None:
        """Free the disk of the weights; status.json tells that it was done on purpose."""
        self.patch_path.unlink(missing_ok=True)
        self.set_status(dropped=True)

    def write_error(self, text: str) -> Path:
        """Keep a traceback in error.txt, away from the console."""
        path = self.path / "error.txt"
        write_bytes(path, text.encode("utf-8", "backslashreplace"))
        return path

    @property
    def process_error(self) -> Json | None:
        """The error (as in status.json) of one of several processes of this cell, left by `write_process_error`."""
        try:
            data: Json = read_json(self.path / "process-error.json")
        except (FileNotFoundError, PrerequisiteError):
            return None
        return data

    def write_process_error(self, error: Mapping[str, Any] | None) -> None:
        """Leave the error of a process that may not write the status; None: forget an earlier one."""
        path = self.path / "process-error.json"
        if error is None:
            path.unlink(missing_ok=True)
        else:
            write_json(path, dict(error))

    # --- curve

    def append_scalars(self, stage: int, step: int, scalars: Mapping[str, float]) -> None:
        """One row of scalars.jsonl. `step` counts from 0 within the stage."""
        append_jsonl(self.path / "scalars.jsonl", {"stage": stage, "step": step, "scalars": dict(scalars)})

    def scalars(self) -> list[Json]:
        """Rows {"stage", "step", "scalars"} in the order of training."""
        return read_jsonl(self.path / "scalars.jsonl", self._on_torn)

    def truncate_scalars(self, stage: int, step: int) -> None:
        """Drop rows at or after (stage, step): they are about to be computed again."""
        path = self.path / "scalars.jsonl"
        if not path.exists():
            return
        rows = self.scalars()
        kept = [row for row in rows if (row["stage"], row["step"]) < (stage, step)]
        if len(kept) < len(rows):
            write_bytes(path, jsonl_bytes(kept))

    # --- cost

    @property
    def cost(self) -> Json:
        """The content of cost.json: {stage index as text: the fields of `StageCost`}; {} when there is none."""
        try:
            data: Json = read_json(self.path / "cost.json")
        except (FileNotFoundError, PrerequisiteError):
            return {}
        return data

    def write_cost(self, stage: int, cost: Mapping[str, Any]) -> None:
        """Note what a stage cost, in place of what an earlier process noted for it."""
        write_json(self.path / "cost.json", {**self.cost, str(stage): dict(cost)}, durable=False)

    def copy_training(self, other: CellDir) -> None:
        """Take over another cell's curve, cost, artifacts and what its status says of its training."""
        for name in ("scalars.jsonl", "cost.json"):
            if (other.path / name).exists():
                write_bytes(self.path / name, (other.path / name).read_bytes())
        for source in other.artifacts.rglob("*"):
            if source.is_file():
                write_bytes(self.artifacts / source.relative_to(other.artifacts), source.read_bytes())
        status = other.status
        known = {name: status[name] for name in ("stage", "step", "collapse") if name in status}
        spent = {phase: took for phase, took in (status.get("seconds") or {}).items() if phase in ("start", "train")}
        self.set_status(**known, trained_by=other.path.name, seconds={**self.status.get("seconds", {}), **spent})

    # --- scores

    def scores_path(self, entry: str) -> Path:
        return self.path / "scores" / f"{file_name(entry)}.jsonl"

    def samples_path(self, entry: str) -> Path:
        return self.path / "samples" / f"{file_name(entry)}.jsonl"

    def write_scores(self, entry: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write all rows of a metric entry at once; the scores file exists only when they are complete.

        A row is a metric's `Row` as a dict (id, values, weight, group, unit, sample); samples
        that are not empty go into a file of their own.
        """
        samples = [{"id": row["id"], **row["sample"]} for row in rows if row.get("sample")]
        scores = [{**_score_row(row), "values": dict(row["values"])} for row in rows]
        write_bytes(self.samples_path(entry), jsonl_bytes(samples))
        write_bytes(self.scores_path(entry), jsonl_bytes(scores))
        self._forget_kept(entry)
        self._add_scored(entry)

    def partial_path(self, entry: str) -> Path:
        return self.path / "partial" / f"{file_name(entry)}.jsonl"

    def keep_rows(self, entry: str, rows: Sequence[Mapping[str, Any]], covered: int) -> None:
        """Keep the next rows of an entry that is being scored; they cover its examples up to number `covered`."""
        append_jsonl(self.partial_path(entry), {"covered": covered, "rows": [dict(row) for row in rows]})

    def kept_rows(self, entry: str) -> tuple[list[Json], int]:
        """All rows that an interrupted scoring has kept, and how many examples they cover."""
        parts = read_jsonl(self.partial_path(entry), self._on_torn)
        return [row for part in parts for row in part["rows"]], parts[-1]["covered"] if parts else 0

    def _forget_kept(self, entry: str) -> None:
        path = self.partial_path(entry)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others' rows are in there, or nothing ever was
            path.parent.rmdir()

    def has_scores(self, entry: str) -> bool:
        return self.scores_path(entry).exists()

    def scores(self, entry: str) -> list[Json]:
        """Rows {"id", "group", "unit", "weight", "values"}; [] when the entry is not scored."""
        return read_jsonl(self.scores_path(entry), self._on_torn)

    def samples(self, entry: str) -> list[Json]:
        """Rows {"id", ...texts}; [] when the metric gives none."""
        return read_jsonl(self.samples_path(entry), self._on_torn)

    def copy_scores(self, entry: str, other: CellDir, known: str) -> None:
        """Take over another cell's scores of `known` as this entry's."""
        samples = other.samples_path(known)
        write_bytes(self.samples_path(entry), samples.read_bytes() if samples.exists() else b"")
        write_bytes(self.scores_path(entry), other.scores_path(known).read_bytes())
        self._forget_kept(entry)
        self._add_scored(entry)

    def copy_shared(self, entry: str, key: str) -> bool:
        """Take the base model's scores of `key` over as this entry's. False when nobody has computed them."""
        shared = self._shared(key)
        if not (shared / "rows.jsonl").exists():
            return False
        write_bytes(self.samples_path(entry), (shared / "samples.jsonl").read_bytes())
        write_bytes(self.scores_path(entry), (shared / "rows.jsonl").read_bytes())
        self._add_scored(entry)
        return True

    def publish_shared(self, entry: str, key: str) -> None:
        """Offer this entry's scores to all cells whose entry has the same key. Hold `RunDir.shared_lock(key)`."""
        shared = self._shared(key)
        write_bytes(shared / "samples.jsonl", self.samples_path(entry).read_bytes())
        write_bytes(shared / "rows.jsonl", self.scores_path(entry).read_bytes())

    def _shared(self, key: str) -> Path:
        return self.path.parent.parent / "shared" / "scores" / file_name(key)

    def _add_scored(self, entry: str) -> None:
        scored = [name for name in self.status.get("scored", []) if name != entry]
        self.set_status(scored=[*scored, entry])


def file_name(label: str) -> str:
    """A label as one portable file name; different labels give different names."""
    return quote(label, safe="+,=@ ").replace("~", "%7E")


def _score_row(row: Mapping[str, Any]) -> Json:
    filled = {"group": "", "unit": "", "weight": 1.0, **row}
    return {name: filled[name] for name in _SCORE_FIELDS}
