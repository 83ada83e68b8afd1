"""A run on disk: `run.json`, the plans it was given, its events and its cells."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import __version__
from ..errors import PlanError, PrerequisiteError
from .atomic import Json, append_jsonl, disk_errors, read_json, read_jsonl, write_json, write_text
from .cell_dir import CellDir, file_name

if TYPE_CHECKING:
    from filelock import BaseFileLock

FORMAT = 1


class CellLike(Protocol):
    """What the store needs to know of a `study.Cell`."""

    @property
    def folder(self) -> str: ...

    def to_json(self) -> Json: ...


def now() -> str:
    """The time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class RunDir:
    """`<root>/<name>/`. `open` takes the run for writing; `attach` joins one that exists, without owning it."""

    def __init__(self, path: Path, lock: BaseFileLock | None = None) -> None:
        self.path = path
        self.warnings: list[str] = []
        """what was repaired while reading (torn last lines)"""
        self._lock = lock

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    @classmethod
    def open(cls, root: Path, name: str, command: Sequence[str] = ()) -> RunDir:
        """Make `root/name`, or go on with the run that is there, and lock it until `close`.

        Raises `PlanError` when the folder holds something else than a run, `PrerequisiteError` when
        another process has it, when it was made by a newer version, or when it cannot be written.
        """
        path = root / name
        _check_folder(path)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        run = cls(path, _lock_run(path))
        try:
            run._start(name, command)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def attach(cls, path: Path) -> RunDir:
        """An existing run, for a worker process or a reader. Raises `PlanError` when it is not a run."""
        if not (path / "run.json").exists():
            raise PlanError(
                "this folder is not a run",
                code="not-a-run",
                where=str(path),
                hint="give the folder that holds run.json",
            )
        run = cls(path)
        run._check_format()
        return run

    def close(self) -> None:
        """Let other commands use the run."""
        if self._lock:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- run.json and events.jsonl

    @property
    def info(self) -> Json:
        """The content of run.json."""
        data: Json = read_json(self.path / "run.json")
        return data

    def event(self, kind: str, **fields: Any) -> None:
        """Add one row {"time", "event", ...} to events.jsonl."""
        from filelock import FileLock

        with disk_errors(self.path), FileLock(self.path / ".events.lock"):  # workers write here as well
            append_jsonl(self.path / "events.jsonl", {"time": now(), "event": kind, **fields})

    def events(self) -> list[Json]:
        return read_jsonl(self.path / "events.jsonl", self.warnings.append)

    def _start(self, name: str, command: Sequence[str]) -> None:
        torch = sys.modules.get("torch")
        machine: Json = {
            "format": FORMAT,
            "name": name,
            "suite": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "command": list(command or sys.argv),
        }
        if torch is not None:
            machine["torch"] = str(torch.__version__)
        again = (self.path / "run.json").exists()
        if again:
            self._check_format()
        before = self.info if again else {"created": now()}
        write_json(self.path / "run.json", {**before, **machine})
        self.event("continue" if again else "start", suite=__version__, command=machine["command"])

    def _check_format(self) -> None:
        found = self.info.get("format")
        if not isinstance(found, int) or found > FORMAT:
            raise PrerequisiteError(
                f"the run has format {found!r} and this version reads formats up to {FORMAT}",
                code="run-format",
                where=str(self.path / "run.json"),
                hint="use the version of unlearn-suite that made it, or another run name",
            )

    # --- plans

    def save_plan(self, text: str, lock: Mapping[str, Any]) -> Path:
        """Keep the plan's text as plans/NNN.yaml (only when it changed) and its resolved form as plan.lock.json."""
        plans = sorted((self.path / "plans").glob("*.yaml"))
        latest = plans[-1] if plans else None
        if latest is None or latest.read_text(encoding="utf-8") != text:
            number = int(latest.stem) + 1 if latest else 1
            latest = self.path / "plans" / f"{number:03d}.yaml"
            write_text(latest, text)
        write_json(self.path / "plan.lock.json", dict(lock))
        return latest

    # --- cells and what they share

    def cell_dir(self, cell: CellLike | Mapping[str, Any]) -> CellDir:
        """The cell's folder, with its cell.json written. A mapping must hold the folder's parts."""
        data = dict(cell) if isinstance(cell, Mapping) else cell.to_json()
        folder = _folder(data) if isinstance(cell, Mapping) else cell.folder
        if Path(folder).name != folder:
            raise ValueError(f"{folder!r} is not a folder name")
        found = CellDir(self.path / "cells" / folder, self.warnings.append)
        found.write_cell(data)
        return found

    def cells(self) -> list[CellDir]:
        """All cells that have a cell.json, also those of earlier plans, by folder name."""
        paths = sorted(path.parent for path in self.path.glob("cells/*/cell.json"))
        return [CellDir(path, self.warnings.append) for path in paths]

    def twins(self, cell: Mapping[str, Any]) -> Iterator[CellDir]:
        """The other cells whose stages end with the weights that those of `cell` (as JSON) do: their `training` is
        the same. None for a cell without stages."""
        training, folder = cell.get("training"), _folder(cell)
        for other in self.cells() if training else ():
            if other.path.name != folder and other.cell.get("training") == training:
                yield other

    def shared_scores(self, key: str) -> Path:
        """The folder of the base model's scores with this key (it may not exist)."""
        return self.path / "shared" / "scores" / file_name(key)

    @property
    def kept(self) -> Path:
        """The folder of activations that cells keep for one another (it may not exist)."""
        return self.path / "shared" / "kept"

    def start(self, key: str) -> Path:
        """The folder of the model that cells begin with, made by the stages of this key (it may not exist)."""
        return self.path / "shared" / "starts" / file_name(key)

    def drop_kept(self) -> None:
        """Free the disk of what can be computed again. No cell may be running."""
        shutil.rmtree(self.kept, ignore_errors=True)

    @contextmanager
    def shared_lock(self, key: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Own the making of what `key` names; waits for another process that does.

        `waiting` is called before and every second while it waits, and may raise to wait no longer.
        """
        from filelock import FileLock, Timeout

        folder = self.path / "shared" / "locks"
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{file_name(key)}.lock")
        for timeout in chain([0.0], repeat(1.0)):
            try:
                lock.acquire(timeout=timeout, poll_interval=0.2)
                break
            except Timeout:
                if waiting:
                    waiting()
        try:
            yield
        finally:
            lock.release()


def _folder(cell: Mapping[str, Any]) -> str:
    return "{problem}.{model}.{arm}.s{seed}.{id}".format_map(cell)


def _check_folder(path: Path) -> None:
    if not path.exists():
        return
    other = not path.is_dir() or any(item.name != ".lock" for item in path.iterdir())
    if other and not (path / "run.json").exists():
        raise PlanError(
            "the folder exists and is not a run of this suite",
            code="not-a-run",
            where=str(path),
            hint="choose another run name or another folder for runs",
        )


def _lock_run(path: Path) -> BaseFileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(path / ".lock")
    try:
        with disk_errors(path):
            lock.acquire(timeout=0)
    except Timeout:
        raise PrerequisiteError(
            "another command is working on this run",
            code="run-locked",
            where=str(path),
            hint="wait until it ends, or give this run another name",
        ) from None
    return lock
