"""Running cells in this process: resume, failures, interrupts, exit codes."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.errors import PluginError, PrerequisiteError, TrainingError
from unlearn_suite.runner import NoProgress, PlainProgress, run_cells
from unlearn_suite.store import CellDir, RunDir, write_json
from unlearn_suite.store.atomic import read_json
from unlearn_suite.study import Cell

STEPS = 5


def make_cells(*arms: str) -> list[Cell]:
    common: dict[str, Any] = {
        "problem": "p", "model": "m", "seed": 0, "model_ref": {}, "data": {}, "metrics": [], "precision": "fp32",
        "compute": {}, "plugins": {}, "summary": {},
    }  # fmt: skip
    return [Cell(id=f"id-{arm}", arm=arm, stages=[] if arm == "base" else [{}], **common) for arm in arms]


class Work:
    """An execute that steps, saves, resumes and polls like the engine does, and logs each step it takes."""

    def __init__(self, log: Path, pause: float = 0.0, **faults: BaseException) -> None:
        self.log = log
        self.pause = pause
        self.faults = faults

    def __call__(self, cell: Cell, cell_dir: CellDir, catalog: Any, run: RunDir, progress: Any) -> None:
        saved = cell_dir.checkpoints / "step.json"
        first = read_json(saved)["step"] if saved.exists() else 0
        cell_dir.truncate_scalars(0, first)
        progress.begin("work", STEPS)
        for step in range(first, STEPS):
            with self.log.open("a") as file:
                file.write(f"{cell.arm} {step}\n")
            cell_dir.append_scalars(0, step, {"loss": float(step)})
            progress.update(step + 1, {"loss": float(step)})
            write_json(saved, {"step": step + 1})
            time.sleep(self.pause)
            if step == 2 and cell.arm in self.faults:
                raise self.faults[cell.arm]
            if progress.stop_requested():
                raise KeyboardInterrupt
        progress.end()
        cell_dir.write_scores("m", [{"id": "x", "values": {"v": 1.0}}])


@pytest.fixture
def run(tmp_path: Path) -> Any:
    with RunDir.open(tmp_path, "r") as found:
        yield found


def states(run: RunDir) -> dict[str, str]:
    return {found.cell["arm"]: found.status["state"] for found in run.cells()}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_second_run_does_nothing(run: RunDir, tmp_path: Path) -> None:
    cells, log = make_cells("base", "a"), tmp_path / "log"
    assert run_cells(cells, run, Work(log)) == 0
    assert states(run) == {"base": "done", "a": "done"} and len(lines(log)) == 2 * STEPS
    files = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    out = io.StringIO()
    assert run_cells(cells, run, Work(log), progress=PlainProgress(out)) == 0
    assert len(lines(log)) == 2 * STEPS and "nothing to do" in out.getvalue()
    assert files == {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}


def test_a_done_cell_that_lost_a_file_runs_again(run: RunDir, tmp_path: Path) -> None:
    cells, log = make_cells("base", "a"), tmp_path / "log"
    run_cells(cells, run, Work(log))
    cell_dir = run.cell_dir(cells[1])
    cell_dir.scores_path("m").unlink()
    assert run_cells(cells, run, Work(log)) == 0
    assert cell_dir.has_scores("m") and len(lines(log)) == 2 * STEPS  # from its checkpoint: no step again


def test_a_failing_cell_leaves_the_others(run: RunDir, tmp_path: Path) -> None:
    cells, log = make_cells("base", "a", "b"), tmp_path / "log"
    fault = TrainingError("the loss is not finite", code="nan", where="step 2", hint="lower the lr")
    out = io.StringIO()
    assert run_cells(cells, run, Work(log, a=fault), progress=PlainProgress(out)) == 1
    assert states(run) == {"base": "done", "a": "failed", "b": "done"}
    error = run.cell_dir(cells[1]).status["error"]
    assert error == {"code": "nan", "message": "the loss is not finite", "where": "step 2", "hint": "lower the lr",
                     "exit": 1}  # fmt: skip
    assert "step 2: the loss is not finite (lower the lr)" in out.getvalue()
    assert "run the same command again to retry the 1 failed cell" in out.getvalue()
    assert run_cells(cells, run, Work(log)) == 0
    assert states(run)["a"] == "done" and run.cell_dir(cells[1]).status["error"] is None
    assert lines(log).count("a 2") == 1 and lines(log).count("b 2") == 1


def test_an_unexpected_exception_is_a_bug_with_its_traceback_on_disk(run: RunDir, tmp_path: Path) -> None:
    cells, out = make_cells("a", "b"), io.StringIO()
    work = Work(tmp_path / "log", a=ZeroDivisionError("by zero"))
    assert run_cells(cells, run, work, progress=PlainProgress(out)) == 1
    found = run.cell_dir(cells[0])
    assert found.status["error"]["code"] == "bug" and "ZeroDivisionError: by zero" in found.status["error"]["message"]
    assert "Traceback" in (found.path / "error.txt").read_text() and "Traceback" not in out.getvalue()
    assert run_cells(cells, run, Work(tmp_path / "log"), progress=PlainProgress(out)) == 0
    assert not (found.path / "error.txt").exists()


def test_debug_shows_the_traceback(run: RunDir, tmp_path: Path) -> None:
    out = io.StringIO()
    work = Work(tmp_path / "log", a=ZeroDivisionError("by zero"))
    assert run_cells(make_cells("a"), run, work, progress=PlainProgress(out), debug=True) == 70
    assert "Traceback" in out.getvalue()


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ({"a": PluginError("x", code="c"), "b": PluginError("y", code="c")}, 3),
        ({"a": PrerequisiteError("x", code="c"), "b": PrerequisiteError("y", code="c")}, 4),
        ({"a": PluginError("x", code="c"), "b": PrerequisiteError("y", code="c")}, 1),
        ({"a": PluginError("x", code="c")}, 1),
        ({"a": TrainingError("x", code="c"), "b": TrainingError("y", code="c")}, 1),
        ({"a": SystemExit(0), "b": SystemExit(0)}, 70),
        ({"a": MemoryError(), "b": OSError(errno.ENOSPC, "full", "/x")}, 4),
    ],
)
def test_exit_codes(run: RunDir, tmp_path: Path, faults: dict[str, BaseException], code: int) -> None:
    assert run_cells(make_cells("a", "b"), run, Work(tmp_path / "log", **faults)) == code
    assert "running" not in states(run).values()


def test_cells_done_before_soften_the_exit_code(run: RunDir, tmp_path: Path) -> None:
    run_cells(make_cells("a"), run, Work(tmp_path / "log"))
    work = Work(tmp_path / "log", b=PluginError("y", code="c"))
    assert run_cells(make_cells("a", "b"), run, work) == 1


def test_full_disk_in_the_middle(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, real, out = make_cells("base", "a"), os.replace, io.StringIO()

    def fail_for_a(source: Path, target: Path) -> None:
        if "p.m.a." in str(target) and "cell.json" not in str(target):
            raise OSError(errno.ENOSPC, "no space left")
        real(source, target)

    monkeypatch.setattr(os, "replace", fail_for_a)
    assert run_cells(cells, run, Work(tmp_path / "log"), progress=PlainProgress(out)) == 1
    assert "disk full" in out.getvalue() and states(run) == {"base": "done", "a": "pending"}
    assert run.cell_dir(cells[0]).scores("m")
    monkeypatch.undo()
    assert run_cells(cells, run, Work(tmp_path / "log")) == 0


class Observer:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def notify(self, hook: str, **arguments: Any) -> None:
        self.seen.append((hook, arguments["cell"]["arm"] + " " + arguments.get("status", {}).get("state", "")))
        if hook == "on_cell_end":
            raise RuntimeError("observer broke")


def test_observers_are_called_and_cannot_break_a_run(run: RunDir, tmp_path: Path) -> None:
    observer, out = Observer(), io.StringIO()
    work = Work(tmp_path / "log", a=TrainingError("x", code="c"))
    assert run_cells(make_cells("a", "b"), run, work, catalog=observer, progress=PlainProgress(out)) == 1
    assert observer.seen == [
        ("on_cell_start", "a "), ("on_cell_end", "a failed"), ("on_cell_start", "b "), ("on_cell_end", "b done"),
    ]  # fmt: skip
    assert out.getvalue().count("warning: an observer failed in on_cell_end: observer broke") == 2


def test_a_cell_of_another_process_is_left_alone(run: RunDir, tmp_path: Path) -> None:
    cells = make_cells("a", "b")
    with run.cell_dir(cells[0]).lock():
        assert run_cells(cells, run, Work(tmp_path / "log")) == 1
    assert states(run) == {"a": "pending", "b": "done"} and "a 0" not in lines(tmp_path / "log")


# --- signals and kills, on real processes

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_runner_cells import RunDir, Work, make_cells, run_cells
from unlearn_suite.runner import PlainProgress
root = Path(sys.argv[1])
with RunDir.open(root, "r") as run:
    work, progress = Work(root / "log", pause=0.08), PlainProgress(sys.stdout)
    sys.exit(run_cells(make_cells("base", "a", "b"), run, work, progress=progress))
"""


def start(root: Path) -> subprocess.Popen[str]:
    code = SCRIPT.format(folder=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)


def wait_for(path: Path, line: str) -> None:
    deadline = time.monotonic() + 120
    while line not in lines(path):
        assert time.monotonic() < deadline, f"no {line!r} in {path}"
        time.sleep(0.01)


def test_kill_9_then_the_same_command_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(tmp_path)
    wait_for(log, "a 2")
    process.kill()
    process.communicate()
    run = RunDir.attach(tmp_path / "r")
    assert states(run) == {"base": "done", "a": "running", "b": "pending"}
    with start(tmp_path) as again:
        assert again.wait(20) == 0
    assert states(run) == {"base": "done", "a": "done", "b": "done"}
    taken = lines(log)
    assert [taken.count(f"base {step}") for step in range(STEPS)] == [1] * STEPS
    # at most the step in flight is taken twice, and the curve has each step once
    assert len(taken) - len(set(taken)) <= 1 and len(set(taken)) == 3 * STEPS
    a = next(c for c in run.cells() if c.cell["arm"] == "a")
    assert [row["step"] for row in a.scalars()] == list(range(STEPS))
    starts = [e["before"] for e in run.events() if e["event"] == "cell_start" and e["cell"] == "id-a"]
    assert starts == ["pending", "running"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_and_is_resumable(tmp_path: Path, number: int, code: int) -> None:
    process = start(tmp_path)
    wait_for(tmp_path / "log", "a 1")
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code and "run the same command again to continue" in output
    assert "Traceback" not in output
    run = RunDir.attach(tmp_path / "r")
    assert states(run) == {"base": "done", "a": "interrupted", "b": "pending"}
    with RunDir.open(tmp_path, "r") as owned:
        assert run_cells(make_cells("base", "a", "b"), owned, Work(tmp_path / "log")) == 0
    assert len(lines(tmp_path / "log")) == 3 * STEPS  # no step was lost


def test_second_interrupt_does_not_wait(run: RunDir) -> None:
    def stubborn(*_: Any) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)

    before = signal.getsignal(signal.SIGINT)
    started = time.monotonic()
    assert run_cells(make_cells("a", "b"), run, stubborn) == 130
    assert time.monotonic() - started < 5 and states(run) == {"a": "interrupted", "b": "pending"}
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_that_comes_with_the_last_step_is_no_interrupt(run: RunDir) -> None:
    def late(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    assert run_cells(make_cells("a"), run, late) == 0
    assert states(run) == {"a": "done"}


def test_requested_stop_is_polled(run: RunDir, tmp_path: Path) -> None:
    progress = NoProgress()
    progress.request_stop()
    assert run_cells(make_cells("a", "b"), run, Work(tmp_path / "log"), progress=progress) == 130
    assert lines(tmp_path / "log") == ["a 0"] and states(run) == {"a": "interrupted", "b": "pending"}
