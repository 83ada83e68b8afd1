"""What a run tells: few plain lines, a live display, and the record that a parent process reads."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from unlearn_suite.runner.progress import PlainProgress, Running, duration, label, make_progress, phase_of
from unlearn_suite.runner.record import RecordProgress
from unlearn_suite.runner.rich_progress import RichProgress
from unlearn_suite.store import CellDir
from unlearn_suite.study import Cell


def make_cell(arm: str = "rmu") -> Cell:
    return Cell(id=arm, problem="[p]", model="m", arm=arm, seed=3, model_ref={}, data={}, stages=[], metrics=[],
                precision="fp32", compute={}, plugins={}, summary={})  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drive(progress: Any, clock: Clock, cells: int = 6, steps: int = 60, seconds: float = 1.0) -> None:
    """A run of `cells` cells: load, train with a nested sampling phase, and three metrics."""
    progress.begin_run(cells, 0)
    for index in range(cells):
        cell = make_cell(f"arm{index}")
        progress.begin_cell(cell)
        progress.begin("loading", None)
        progress.end()
        progress.begin("cosine-rmu", steps)
        progress.begin("sampling", 10)
        progress.update(10)
        progress.end()
        for step in range(steps):
            clock.now += seconds
            progress.update(step + 1, {"loss": 0.5, "cos": 0.25})
        progress.end()
        for metric in ("cloze", "perplexity", "toxicity"):
            progress.begin(f"scoring {metric}", 20)
            for done in range(20):
                clock.now += seconds / 2
                progress.update(done + 1)
            progress.end()
        progress.end_cell(cell, "done", 90.0)
    progress.end_run()


def test_plain_lines_are_few_and_informative() -> None:
    out, clock = io.StringIO(), Clock()
    drive(PlainProgress(out, clock=clock), clock)
    lines = out.getvalue().splitlines()
    assert clock.now - 100 == 540 and 50 <= len(lines) <= 100  # nine minutes
    assert lines[0] == "6 cells" and lines[1] == "[1/6] [p] / arm0 (m, seed 3)"
    assert "    cosine-rmu 10/60, 1/s, 50 s left: loss 0.5, cos 0.25" in lines
    assert "    cosine-rmu: 60 in 1 min 0 s, loss 0.5, cos 0.25" in lines
    assert "[6/6] done after 1 min 30 s" in lines


def test_rate_counts_only_the_steps_taken_here() -> None:
    out, clock = io.StringIO(), Clock()
    progress = PlainProgress(out, interval=0, clock=clock)
    progress.begin("stage", 100)
    clock.now += 50  # set-up
    progress.update(81)
    clock.now += 2
    progress.update(82)
    assert out.getvalue().splitlines()[-1] == "    stage 82/100, 0.5/s, 36 s left"


def test_plain_text_has_no_control_characters_and_survives_its_stream() -> None:
    out = io.StringIO()
    PlainProgress(out).say("a\x1b[31mb\x07\tc\nd")
    assert out.getvalue() == "    a [31mb  c\n    d\n"
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    PlainProgress(narrow).warn("café")
    assert narrow.buffer.getvalue() == b"    warning: caf?\n"
    closed = io.StringIO()
    closed.close()
    PlainProgress(closed).say("nobody listens")


def test_stop_is_told_once() -> None:
    for progress, read in _both():
        progress.begin("work", 2)
        assert not progress.stop_requested()
        progress.request_stop()
        assert progress.stop_requested()
        progress.update(1)
        progress.update(2)
        assert read().count("stopping as soon as") == 1


def _both() -> Any:
    plain, live = io.StringIO(), Terminal()
    return [(PlainProgress(plain), plain.getvalue), (RichProgress(live), live.getvalue)]


def test_the_stream_decides() -> None:
    assert isinstance(make_progress(io.StringIO()), PlainProgress)
    assert isinstance(make_progress(Terminal()), RichProgress)


def test_live_display(monkeypatch: Any) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out, clock = Terminal(), Clock()
    progress = RichProgress(out, clock=clock)
    drive(progress, clock, cells=2)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "[p] / arm1 (m, seed 3)" in text and "cosine-rmu: 1 min 0 s, loss 0.5, cos 0.25" in text
    assert "done after 1 min 30 s" in text and "2/2" in text
    assert progress.phases == []


def test_live_display_of_a_pool_and_of_a_failure(monkeypatch: Any) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    out = Terminal()
    progress = RichProgress(out)
    progress.begin_run(2, 0)
    first, second = make_cell("one"), make_cell("two")
    phase = phase_of({"what": "train", "done": 3, "total": 9, "info": {"loss": 2.0}, "rate": 1.5})
    progress.running([Running(first, phase), Running(second, None)])
    progress._display.refresh()
    progress.end_cell(first, "failed", 2.0, "no [bold]memory[/] left")
    progress.end_run()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert f"{label(first)}: train" in text and "3/9" in text and "1.5/s, 4.0 s left  loss 2" in text
    assert f"{label(second)}: starting" in text
    assert "failed after 2.0 s: no [bold]memory[/] left" in text and "1/2" in text


def test_phases_left_open_by_an_exception_are_dropped() -> None:
    for progress, _ in _both():
        progress.begin_run(1, 0)
        progress.begin("outer", None)
        progress.begin("inner", 3)
        progress.end_cell(make_cell(), "failed", 1.0, "x")
        progress.update(1)
        progress.end()
        assert progress.phases == []
        progress.end_run()


def test_record_for_the_parent(tmp_path: Path) -> None:
    clock, cell_dir = Clock(), CellDir(tmp_path)
    assert cell_dir.progress == {} and phase_of({}) is None
    progress = RecordProgress(cell_dir, io.StringIO(), every=1.0, clock=clock)
    progress.begin("train", 10)
    for step in range(4):
        clock.now += 0.5
        progress.update(step + 1, {"loss": 2.0})
    progress.warn("hot")
    phase = phase_of(cell_dir.progress)
    assert phase and (phase.what, phase.done, phase.total, phase.rate, dict(phase.info)) == (
        "train", 4, 10, 2.0, {"loss": 2.0},
    )  # fmt: skip
    assert phase.left == 3.0 and cell_dir.progress["warnings"] == ["hot"]


def test_durations() -> None:
    told = [duration(seconds) for seconds in (0.04, 9.96, 59.4, 59.6, 3599.4, 7500)]
    assert told == ["0.0 s", "10.0 s", "59 s", "1 min 0 s", "59 min 59 s", "2 h 5 min"]


def test_the_runner_is_light() -> None:
    code = "import sys, unlearn_suite.runner; print([m for m in ('torch', 'pyarrow', 'rich') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
