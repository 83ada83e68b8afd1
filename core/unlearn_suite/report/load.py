"""Reads a run directory as it is: finished, failed, half written. Nothing here writes, or fails on torn files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import SuiteError
from ..store import CellDir, RunDir, read_jsonl
from ..store.atomic import read_json

Json = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One metric entry of a cell: what was asked for, and what its values mean.

    `values`: name -> the fields of its `ValueSpec` (empty when the run does not say).
    """

    name: str
    use: str
    want: str
    show: tuple[str, ...]
    key: str
    values: Mapping[str, Json]
    summary: str = ""
    data: str = ""
    combines: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Entry:
        use = str(data.get("use", ""))
        name = str(data.get("name") or use.rpartition("/")[2])
        return cls(
            name=name,
            use=use,
            want=str(data.get("want") or ""),
            show=tuple(data.get("show") or ()),
            key=str(data.get("key") or ""),
            values=data.get("values") or {},
            summary=str(data.get("summary") or ""),
            data=str(data.get("data") or ""),
            combines=str(data.get("combines") or ""),
            options=data.get("with") or {},
        )


@dataclass(frozen=True)
class CellData:
    """One cell's folder. Big files are read when asked for."""

    folder: CellDir
    cell: Json
    status: Json

    @property
    def name(self) -> str:
        """The folder's name below `cells/`."""
        return self.folder.path.name

    @property
    def problem(self) -> str:
        return str(self.cell.get("problem", "?"))

    @property
    def model(self) -> str:
        return str(self.cell.get("model", "?"))

    @property
    def arm(self) -> str:
        return str(self.cell.get("arm", "?"))

    @property
    def seed(self) -> int:
        return int(self.cell.get("seed", 0))

    @property
    def state(self) -> str:
        return str(self.status.get("state") or "pending")

    @property
    def start(self) -> Json:
        """What the stages begin from (see `study.Cell.start`); {} when the cell does not say."""
        found = self.cell.get("start")
        return found if isinstance(found, dict) else {}

    @property
    def is_base(self) -> bool:
        return not self.cell.get("stages") and not self.start.get("control")

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Metric entries by name, in the order of the plan."""
        found = [Entry.from_json(m) for m in self.cell.get("metrics") or []]
        return {entry.name: entry for entry in found}

    @property
    def phases(self) -> list[tuple[str, float]]:
        """(phase, seconds)."""
        found = self.status.get("seconds")
        items = found.items() if isinstance(found, Mapping) else ()
        return [(str(name), float(value)) for name, value in items if isinstance(value, int | float)]

    @property
    def seconds(self) -> float | None:
        """Seconds over all phases; None when the status does not say."""
        return sum(value for _, value in self.phases) if self.phases else None


class RunData:
    """A whole run directory, read as far as it can be. `notes` says which files could not be read."""

    def __init__(self, path: Path) -> None:
        """Read run.json, the resolved plan and every cell's head, in the order of the plan.

        Raises `PlanError` when the folder is not a run, `PrerequisiteError` when it is one of a newer version.
        """
        self.store = RunDir.attach(path)
        self.path = path
        self.notes: list[str] = []
        self.run: Json = self._object(lambda: self.store.info)
        self.lock: Json = self._object(lambda: read_json(path / "plan.lock.json"))
        cells = []
        for folder in self.store.cells():
            head = self._object(lambda folder=folder: folder.cell)  # type: ignore[misc]
            if head:
                cells.append(CellData(folder, head, folder.status))
        place = _plan_order(self.lock)
        # an earlier version of the plan may have left cells that this one does not ask for
        cells = [c for c in cells if c.folder.path.name in place] or cells
        cells.sort(key=lambda c: (place.get(c.folder.path.name), not c.is_base, c.problem, c.model, c.arm, c.seed))
        self.cells = tuple(cells)
        self._rows: dict[Path, list[Json]] = {}

    @property
    def name(self) -> str:
        return str(self.run.get("name") or self.lock.get("name") or self.path.resolve().name)

    def score_rows(self, cell: CellData, entry: Entry) -> list[Json]:
        """The cell's score rows of one entry; for a base cell, the shared ones. [] when not scored."""
        own = self._read(cell.folder.scores_path(entry.name))
        return own or (self.base_rows(entry) if cell.is_base else [])

    def base_rows(self, entry: Entry) -> list[Json]:
        """The untouched model's score rows for an entry (of this cell's seed, when scores are sampled)."""
        return self._read(self.store.shared_scores(entry.key) / "rows.jsonl") if entry.key else []

    def before_rows(self, cell: CellData, entry: Entry) -> list[Json]:
        """The untouched model's rows that a cell's are compared with: those of the entry's key, else those of its own
        cell, as what is sampled is scored with the first seed only. [] when it is not scored."""
        home = self.base_cell(cell.problem, cell.model)
        first = home.entries.get(entry.name) if home else None
        own = self.base_rows(entry)
        if own or home is None or first is None:
            return own
        return self.base_rows(first) or self.score_rows(home, first)

    def attacked_rows(self, cell: CellData, name: str) -> list[Json]:
        """The cell's score rows at a point of an attack, by the name of `study.Attacked`."""
        return self._read(cell.folder.scores_path(name))

    def samples(self, cell: CellData, entry: Entry) -> list[Json]:
        """The cell's sample rows of one entry."""
        own = self._read(cell.folder.samples_path(entry.name))
        return own or (self.base_samples(entry) if cell.is_base else [])

    def base_samples(self, entry: Entry) -> list[Json]:
        return self._read(self.store.shared_scores(entry.key) / "samples.jsonl") if entry.key else []

    def scalars(self, cell: CellData) -> list[Json]:
        """Rows {"stage", "step", "scalars"} in order; a step that was repeated after a resume counts once."""
        last: dict[tuple[int, int], Json] = {}
        for row in self._read(cell.folder.path / "scalars.jsonl"):
            if isinstance(row.get("scalars"), dict):
                last[int(row.get("stage", 0)), int(row.get("step", 0))] = row
        return [last[key] for key in sorted(last)]

    @property
    def starts(self) -> list[CellData]:
        """The making of the models that cells begin with, like cells, each once; those that have begun."""
        keys = dict.fromkeys(str(c.start["key"]) for c in self.cells if c.start.get("key"))
        folders = [CellDir(self.store.start(key)) for key in keys]
        heads = [(folder, self._object(lambda folder=folder: folder.cell)) for folder in folders]  # type: ignore[misc]
        return [CellData(folder, head, folder.status) for folder, head in heads if head]

    def base_cell(self, problem: str, model: str) -> CellData | None:
        """The cell of the untouched model, if the plan has one."""
        return next((c for c in self.cells if c.is_base and (c.problem, c.model) == (problem, model)), None)

    def plan_text(self) -> str:
        """The plan as its author wrote it (the newest copy), or the resolved one."""
        copies = sorted((self.path / "plans").glob("*.yaml"))
        if copies:
            return copies[-1].read_text(encoding="utf-8", errors="replace")
        return json.dumps(self.lock, indent=2, ensure_ascii=False) if self.lock else ""

    def _object(self, read: Callable[[], Any]) -> Json:
        """What `read` gives; {} (and a note, unless the file is only missing) when it cannot be read."""
        try:
            data = read()
        except FileNotFoundError:
            return {}
        except (SuiteError, OSError) as error:
            self.notes.append(str(error))
            return {}
        return data if isinstance(data, dict) else {}

    def _read(self, path: Path) -> list[Json]:
        """The rows of a file, once. A torn last line is left out; an unreadable file is noted and gives none."""
        if path not in self._rows:
            try:
                self._rows[path] = [row for row in read_jsonl(path, self.notes.append) if isinstance(row, dict)]
            except (SuiteError, OSError) as error:
                self.notes.append(str(error))
                self._rows[path] = []
        return self._rows[path]


def _plan_order(lock: Json) -> dict[str, int]:
    """Folder of a cell -> its place in the plan; {} when the resolved plan does not list its cells."""
    return {str(item.get("folder")): i for i, item in enumerate(lock.get("cells") or []) if isinstance(item, Mapping)}


def groups_of(cells: Sequence[CellData]) -> Iterator[tuple[str, str, list[CellData]]]:
    """(problem, model, its cells), in the order of the cells."""
    found: dict[tuple[str, str], list[CellData]] = {}
    for cell in cells:
        found.setdefault((cell.problem, cell.model), []).append(cell)
    for (problem, model), members in found.items():
        yield problem, model, members
