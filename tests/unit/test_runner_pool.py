"""Running cells in worker processes."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.runner import PlainProgress, run_cells
from unlearn_suite.runner.pool import threads_per_worker, worker_command
from unlearn_suite.store import RunDir
from unlearn_suite.study import Cell

WORKER = """
import os, signal, sys, time
from pathlib import Path
from unlearn_suite.errors import PluginError
from unlearn_suite.runner import RecordProgress, follow_parent, run_cells
from unlearn_suite.store import RunDir
from unlearn_suite.study import Cell
run = RunDir.attach(Path(sys.argv[1]))
cell_dir = next(c for c in run.cells() if c.cell["id"] == sys.argv[2])
cell = Cell.from_json(cell_dir.cell)
follow_parent()
def execute(cell, cell_dir, catalog, run, progress):
    (cell_dir.path / "pid").write_text(str(os.getpid()))
    run.event("threads", n=os.environ["OMP_NUM_THREADS"])
    progress.begin("work", 3)
    progress.warn("careful")
    if cell.arm == "fails":
        raise PluginError("broken plugin", code="plugin-raised", where="dist", hint="mend it")
    if cell.arm == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if cell.arm == "exits":
        os._exit(9)
    for step in range(3 if cell.arm != "long" else 1000):
        time.sleep(0.1)
        progress.update(step + 1, {"loss": 1.0})
        if progress.stop_requested():
            raise KeyboardInterrupt
    progress.end()
    cell_dir.write_scores("m", [{"id": "x", "values": {"v": 1.0}}])
sys.exit(run_cells([cell], run, execute, progress=RecordProgress(cell_dir, sys.stdout, every=0.01)))
"""


def command(run: Path, cell: Cell) -> Sequence[str]:
    return [sys.executable, "-c", WORKER, str(run), cell.id]


def make_cells(*arms: str) -> list[Cell]:
    common: dict[str, Any] = {
        "problem": "p", "model": "m", "seed": 0, "model_ref": {}, "data": {}, "metrics": [], "precision": "fp32",
        "compute": {}, "plugins": {}, "summary": {},
    }  # fmt: skip
    return [Cell(id=f"id-{arm}", arm=arm, stages=[] if arm == "base" else [{}], **common) for arm in arms]


def unused(*_: Any) -> None:
    raise AssertionError("the parent must not execute cells")


@pytest.fixture
def run(tmp_path: Path) -> Any:
    with RunDir.open(tmp_path, "r") as found:
        yield found


def states(run: RunDir) -> dict[str, str]:
    return {found.cell["arm"]: found.status["state"] for found in run.cells()}


def test_pool_of_two_with_every_kind_of_end(run: RunDir) -> None:
    cells = make_cells("fails", "dies", "exits", "ok", "base")
    run.cell_dir(cells[1]).write_process_error({"code": "old", "message": "of an earlier run", "exit": 3})
    out = io.StringIO()
    assert run_cells(cells, run, unused, workers=2, command=command, progress=PlainProgress(out, interval=0.01)) == 1
    assert states(run) == {"fails": "failed", "dies": "failed", "exits": "failed", "ok": "done", "base": "done"}
    errors = {found.cell["arm"]: found.status.get("error") for found in run.cells()}
    assert errors["fails"]["code"] == "plugin-raised" and errors["fails"]["exit"] == 3
    assert errors["dies"]["message"] == "the worker was killed by signal 9: out of memory?"
    assert "worker.log" in errors["dies"]["hint"] and "exit code 9" in errors["exits"]["message"]
    told = out.getvalue()
    assert told.index("p / base") < told.index("p / fails")  # the base cell is started first
    assert "p.m.ok.s0.id-ok: careful" in told and re.search(r"work [123]/3", told)
    log = (run.cell_dir(cells[3]).path / "worker.log").read_text()
    assert "p / ok" in log and "warning: careful" in log
    threads = {e["n"] for e in run.events() if e["event"] == "threads"}
    assert threads == {str(threads_per_worker(2))}

    started = [e["cell"] for e in run.events() if e["event"] == "cell_start"]
    assert run_cells(cells[3:], run, unused, workers=2, command=command) == 0
    assert [e["cell"] for e in run.events() if e["event"] == "cell_start"] == started


def test_interrupt_reaches_the_workers(run: RunDir) -> None:
    cells = make_cells("long", "ok")

    def interrupt() -> None:
        pid = run.cell_dir(cells[0]).path / "pid"
        while not pid.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    assert run_cells(cells, run, unused, workers=2, command=command) == 143
    assert states(run)["long"] == "interrupted" and states(run)["ok"] in ("interrupted", "done")


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_runner_pool import RunDir, command, make_cells, run_cells, unused
with RunDir.open(Path(sys.argv[1]), "r") as run:
    run_cells(make_cells("long"), run, unused, workers=2, command=command)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = PARENT.format(folder=str(Path(__file__).parent))
    cell_path = tmp_path / "r" / "cells" / "p.m.long.s0.id-long"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as parent:
        deadline = time.monotonic() + 120
        while not (cell_path / "pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        parent.kill()
    run = RunDir.attach(tmp_path / "r")
    while states(run)["long"] != "interrupted":
        assert time.monotonic() < deadline, states(run)
        time.sleep(0.02)


def test_a_worker_that_cannot_be_started(run: RunDir) -> None:
    out = io.StringIO()
    code = run_cells(
        make_cells("a", "b"),
        run,
        unused,
        workers=2,
        command=lambda *_: ["/no/such/program"],
        progress=PlainProgress(out),
    )
    assert code == 4 and "no worker could be started" in out.getvalue()


def test_the_real_command_names_run_cell_and_plugins(tmp_path: Path) -> None:
    built = worker_command(["my.py"])(tmp_path, make_cells("a")[0])
    module = [sys.executable, "-m", "unlearn_suite.worker"]
    assert list(built) == [*module, str(tmp_path), "p.m.a.s0.id-a", "--plugin", "my.py"]


def test_a_file_beside_the_user_does_not_replace_a_module(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy.py").write_text("raise RuntimeError('not for you')")
    monkeypatch.chdir(tmp_path)
    assert run_cells(make_cells("a"), run, unused, workers=2, command=command) == 0


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [threads_per_worker(n) for n in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [threads_per_worker(n) for n in (2, 4)] == [3, 2]


def test_a_worker_names_the_cell_it_does_not_find(run: RunDir) -> None:
    command = [sys.executable, "-m", "unlearn_suite.worker", str(run.path), "runs/x/cells/nothing"]
    pipe = subprocess.PIPE  # as long as it is open the parent lives
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True) as worker:
        assert worker.wait(60) == 2 and worker.stderr is not None
        assert "no folder 'runs/x/cells/nothing' below" in worker.stderr.read()
