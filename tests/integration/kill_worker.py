"""Runs a worker again and again in forks of this process, each killed where a trial says; see test_kill_and_resume.

`python kill_worker.py TEMPLATE CELL TRIALS.json` (with a standard input that stays open: a worker ends with it).
A trial is {"name", "where", "at", "signal"}: raise the signal in the course of `where`, at the share `at` of its
calls of Python or C functions, or at the call of that number. One line of JSON for each trial comes out.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

PLACES = {
    "training": ("unlearn_suite.worker.training", "run_stage"),
    "checkpoint": ("unlearn_suite.engine.checkpoint", "save"),
    "patch": ("unlearn_suite.engine.patch", "save"),
    "rename": ("pathlib", "Path.replace"),  # of a checkpoint or the patch, after it was written beside its place
}
PRELOAD = (
    "pyarrow",
    "torch",
    "transformers.generation",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "unlearn_suite.builtin.metrics.perplexity",
    "unlearn_suite.engine.loop",
    "unlearn_suite.worker.execute",
    "unlearn_suite_knowledge.cosine_rmu.objective",
)
"""what a worker imports, once for all forks"""


class Bomb:
    """Counts the calls made inside each place; raises `number` in this process at call `fuse` of `where`."""

    def __init__(self, where: str = "", fuse: int = 0, number: int = 0) -> None:
        self.where, self.fuse, self.number = where, fuse, number
        self.calls = dict.fromkeys(PLACES, 0)
        self.inside: list[str] = []
        for place, (module, name) in PLACES.items():
            *path, name = name.split(".")
            owner = importlib.import_module(module)
            for part in path:
                owner = getattr(owner, part)
            self.watch(place, owner, name)

    def watch(self, place, owner, name):
        inner = getattr(owner, name)

        def watched(*args, **kwargs):
            self.inside.append(place)
            sys.setprofile(self.count)
            try:
                return inner(*args, **kwargs)
            finally:
                self.inside.pop()
                if not self.inside:
                    sys.setprofile(None)

        setattr(owner, name, watched)

    def count(self, _frame, event, _arg):
        if event in ("call", "c_call"):
            for place in self.inside:
                self.calls[place] += 1
                if place == self.where and self.calls[place] == self.fuse:
                    os.kill(os.getpid(), self.number)


def in_fork(folder: Path, cell: str, bomb: tuple[str, int, int] | None = None, watch: bool = True) -> int:
    """Run the worker; its exit status as os.waitpid gives it. A watched one notes its calls."""
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    code = 70
    with suppress(BaseException):
        log = os.open(folder / "worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from unlearn_suite.worker import __main__ as door

        found = Bomb(*(bomb or ())) if watch else None
        sys.argv = ["worker", str(folder), cell]
        code = door.main()
        if found:
            (folder / "calls.json").write_text(json.dumps(found.calls))
    os._exit(code)


def result(folder: Path, cell: str) -> dict:
    """The patch, its metadata in order, and the scalars without what measures this process."""
    place = folder / "cells" / cell
    rows = [json.loads(line) for line in (place / "scalars.jsonl").read_text().splitlines()]
    for row in rows:
        row["scalars"] = {k: v for k, v in row["scalars"].items() if not k.startswith("attack_")}
    left = sorted(p.name for p in place.glob("checkpoints/*"))
    content = (place / "patch.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])  # its metadata are in no fixed order
    return {"patch": (header, content[8 + size :]), "rows": rows, "left": left}


def attempt(trial: dict, template: Path, cell: str, calls: dict[str, int], expected: dict) -> dict:
    """Interrupt a worker as the trial says, start it again, and tell what was found."""
    folder = template.with_name(trial["name"])
    shutil.copytree(template, folder)
    place = folder / "cells" / cell
    at = trial["at"]
    fuse = at if isinstance(at, int) else max(1, round(at * calls[trial["where"]]))
    status = in_fork(folder, cell, (trial["where"], fuse, signal.Signals[trial["signal"]]))
    saved = sorted(p.name for p in place.glob("checkpoints/*"))
    state = json.loads((place / "status.json").read_text())
    again = os.waitstatus_to_exitcode(in_fork(folder, cell, watch=False))
    told = {
        "name": trial["name"],
        "exit": os.waitstatus_to_exitcode(status),
        "state": state["state"],
        "step": state.get("step", 0),
        "saved": saved,
        "again": again,
        "log": (folder / "worker.log").read_text(),
    }
    if again == 0:
        found = result(folder, cell)
        told["same"] = {key: found[key] == expected[key] for key in expected}
    shutil.rmtree(folder)
    return told


def main() -> None:
    template, cell = Path(sys.argv[1]), sys.argv[2]
    for module in PRELOAD:
        importlib.import_module(module)
    whole = template.with_name("whole")
    shutil.copytree(template, whole)
    status = in_fork(whole, cell)
    assert status == 0, (whole / "worker.log").read_text()
    calls = json.loads((whole / "calls.json").read_text())
    expected = result(whole, cell)
    for trial in json.loads(Path(sys.argv[3]).read_text()):
        print(json.dumps(attempt(trial, template, cell, calls, expected)), flush=True)


if __name__ == "__main__":
    main()
