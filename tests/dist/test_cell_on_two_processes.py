"""`compute: {devices: 2}` as a user runs it: signals, errors of one process, another number of processes next time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unlearn_suite.cli import main
from unlearn_suite.testing.tiny import save_tiny

COMMAND = [str(Path(sys.executable).parent / "unlearn-suite"), "run", "plan.yaml", "--plugin", "faulty.py"]
PLAN = """
plan: 1
name: tiny
models: {tiny: {path: model}}
problems:
  - name: words
    data:
      forget: {use: jsonl, with: {path: texts.jsonl}}
      retain: {use: jsonl, with: {path: texts.jsonl}}
    metrics: [{name: perplexity, use: perplexity, data: retain, show: [perplexity]}, {name: writing, use: fluency, data: retain, show: [perplexity], with: {n: 1, max_new_tokens: 4}}]
arms:
  trained:
    stages:
      - use: cosine-rmu
        with: {block: 2, meta: none}
        steps: 40
        lr: 1.0e-4
        batch: 3
        save_every: 2
        diagnostics: {detectors: [probe], metrics: [perplexity, writing], sample_every: 10}
  faulty: {stages: [{use: faulty, steps: 3, batch: 3}]}
compute: {devices: DEVICES}
"""
FAULTY = """
import os
from unlearn_suite import Config, Loss, LossObjective, ObjectiveSpec, Requirements, hookimpl

class Faulty(LossObjective[Config]):
    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1]), reads=1)
    def loss(self, batch):
        if os.environ.get("RANK") == "1" and self.ctx.step_index == 1:
            raise KeyError("only here")
        h = self.ctx.policy.hidden(batch["forget"], [1])[1]
        return Loss({"push": batch["forget"].mean(h.square().mean(-1))})

@hookimpl
def register_objectives(register):
    register(ObjectiveSpec(name="faulty", summary="Fails on one process", load=f"{__name__}:Faulty"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model")
    texts = ["the cat drinks milk", "rain falls in april", "cows eat grass", "fog hides the road", "a dog sleeps"]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": t, "group": "g"}) for t in texts))
    (tmp_path / "faulty.py").write_text(FAULTY)
    plan(tmp_path, 2)
    return tmp_path


def plan(folder: Path, devices: int) -> None:
    (folder / "plan.yaml").write_text(PLAN.replace("DEVICES", str(devices)))


def start(folder: Path, arm: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "--only", f"*.{arm}.*"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def cell(folder: Path, arm: str, runs: str = "runs") -> Path:
    (found,) = (folder / runs / "tiny" / "cells").glob(f"*.{arm}.*")
    return found


def status(folder: Path, arm: str) -> dict:
    return json.loads((cell(folder, arm) / "status.json").read_text())


def scalars(path: Path) -> list[tuple[int, dict]]:
    rows = [json.loads(line) for line in (path / "scalars.jsonl").read_text().splitlines()]
    return [(row["step"], row["scalars"]) for row in rows]


def here(folder: Path, runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run in this process, on one device."""
    plan(folder, 1)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["unlearn-suite", *COMMAND[1:], "--only", "*.trained.*", "--runs", runs])
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    assert not code


def test_a_signal_stops_all_with_a_checkpoint_and_one_process_goes_on_from_it(folder, monkeypatch):
    process = start(folder, "trained")
    deadline = time.monotonic() + 240
    while not list(folder.glob("runs/tiny/cells/*/checkpoints/*step000002*")):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=240)
    log = (cell(folder, "trained") / "worker.log").read_text()
    assert process.returncode == 143, out + log
    assert status(folder, "trained")["state"] == "interrupted", out + log
    rows = (cell(folder, "trained") / "scalars.jsonl").read_text().splitlines()
    assert 2 <= len(rows) < 40
    newest = max(cell(folder, "trained").glob("checkpoints/*.pt"))
    assert f"step{len(rows):06d}" in newest.name  # every step that was made is in the checkpoint
    here(folder, "runs", monkeypatch)
    here(folder, "alone", monkeypatch)
    assert status(folder, "trained")["state"] == "done"
    both, alone = (load_file(cell(folder, "trained", runs) / "patch.safetensors") for runs in ("runs", "alone"))
    assert both.keys() == alone.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(both[name], tensor, rtol=0, atol=1e-5)
    rows, expected = (scalars(cell(folder, "trained", runs)) for runs in ("runs", "alone"))
    assert [step for step, _ in rows] == [*range(40), 40]
    watched = {f"diag_{name}_perplexity" for name in ("perplexity", "writing")}
    assert [step for step, row in rows if watched <= row.keys()] == [9, 19, 29, 40]
    for (_, row), (_, other) in zip(rows, expected, strict=True):
        found = {name: value for name, value in row.items() if name.startswith("diag_")}
        assert found == pytest.approx({name: value for name, value in other.items() if name in found}, rel=1e-4)


def test_an_error_on_one_process_is_the_error_of_the_cell(folder):
    process = start(folder, "faulty")
    out, _ = process.communicate(timeout=240)
    log = (cell(folder, "faulty") / "worker.log").read_text()
    found = status(folder, "faulty")
    assert found["state"] == "failed", out + log
    assert "KeyError" in found["error"]["message"] and "faulty.py" in found["error"]["where"], log
    assert process.returncode == 3 and "Traceback" not in out


def test_what_another_cell_has_trained_is_taken_over_by_all(folder, monkeypatch):
    here(folder, "runs", monkeypatch)
    before = cell(folder, "trained")
    more = "metrics: [{name: more, use: perplexity, data: forget}, "
    (folder / "plan.yaml").write_text(PLAN.replace("DEVICES", "2").replace("    metrics: [", "    " + more))
    process = start(folder, "trained")
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    (after,) = (path for path in before.parent.glob("*.trained.*") if path != before)
    assert json.loads((after / "status.json").read_text())["trained_by"] == before.name
    assert (after / "scalars.jsonl").read_bytes() == (before / "scalars.jsonl").read_bytes()
    taken, trained = (load_file(path / "patch.safetensors") for path in (after, before))
    assert taken.keys() == trained.keys() and all(torch.equal(taken[name], trained[name]) for name in trained)
    assert (after / "scores" / "more.jsonl").exists()
