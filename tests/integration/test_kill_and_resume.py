"""A worker killed at random moments goes on, with the same command, to the same bits.

The trained cell has two stages of cosine-rmu with simulated attacks. The moments are counted in function calls,
so they fall anywhere: between steps, in a simulated attack, in the middle of writing a checkpoint or the patch.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn_suite import models
from unlearn_suite.plan import load_plan
from unlearn_suite.plugins import load_catalog
from unlearn_suite.store import RunDir
from unlearn_suite.study import build_cells
from unlearn_suite.testing.tiny import save_tiny

PLAN = """
plan: 1
name: template
models: {tiny: {path: model}}
problems:
  - name: words
    data:
      forget: {use: jsonl, with: {path: animals.jsonl}}
      retain: {use: jsonl, with: {path: weather.jsonl}}
    metrics: [{use: perplexity, data: retain, show: [perplexity]}]
arms:
  trained:
    stages:
      - {use: cosine-rmu, with: {block: 2, META, meta_start: 0}, steps: 4, lr: 5.0e-3, batch: 2, save_every: 2}
      - {use: cosine-rmu, with: {block: 1, META, inner_optimizer: adamw}, steps: 2, batch: 2, save_every: 1}
"""
META = "meta: relearn, inner_steps: 2, inner_loss: rep"
ANIMALS = ["the cat drinks milk", "a dog eats meat", "the owl hunts mice", "cows eat grass", "a fox eats hens"]
WEATHER = ["rain falls in april", "snow lies on hills", "wind blows at sea", "fog hides the road", "sun dries hay"]


def trials() -> list[dict]:
    """Where and when; `at`: a share of the calls made there in a run without interruption, or the number of a call."""
    draw = random.Random(20)
    kills = {"training": 4, "checkpoint": 2, "patch": 1}
    found = [
        {"name": f"{where}-{i}", "where": where, "at": (i + draw.random()) / count, "signal": "SIGKILL"}
        for where, count in kills.items()
        for i in range(count)
    ]
    stops = [("SIGTERM", 0.2 * draw.random() + 0.1), ("SIGINT", 0.2 * draw.random() + 0.6)]
    found.append({"name": "rename", "where": "rename", "at": 1, "signal": "SIGKILL"})
    return found + [{"name": f"stop-{name}", "where": "training", "at": at, "signal": name} for name, at in stops]


TRIALS = trials()


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("kill")
    save_tiny(folder / "model")
    for name, texts in (("animals", ANIMALS), ("weather", WEATHER)):
        rows = [json.dumps({"text": t, "group": name}) for t in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    plan_file = folder / "plan.yaml"
    plan_file.write_text(PLAN.replace("META", META))
    (cell,) = build_cells(load_plan(plan_file, load_catalog()), identity=models.identity)
    with RunDir.open(folder, "template") as run:
        run.cell_dir(cell)
    (folder / "trials.json").write_text(json.dumps(TRIALS))
    script = Path(__file__).with_name("kill_worker.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder / "template"), cell.folder, str(folder / "trials.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin and process.stdout and process.stderr
    lines, errors = process.stdout.readlines(), process.stderr.read()
    process.stdin.close()
    assert process.wait(timeout=60) == 0, errors
    return {found["name"]: found for found in map(json.loads, lines)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("trial", TRIALS, ids=lambda t: t["name"])
def test_the_same_command_goes_on_to_the_same_bits(told, trial):
    found = told[trial["name"]]
    if trial["signal"] == "SIGKILL":
        assert found["exit"] == -signal.SIGKILL and found["state"] == "running"
    else:
        assert found["exit"] == (143 if trial["signal"] == "SIGTERM" else 130), found["log"]
        assert found["state"] == "interrupted"
        assert any(f".step{found['step']:06d}." in name for name in found["saved"]), found
    assert found["again"] == 0, found["log"]
    assert found["same"] == {"patch": True, "rows": True, "left": True}, found["log"]


def test_the_kills_fell_into_different_places(told):
    """Else the trials would ask one question many times."""
    steps = {(found["step"], tuple(n.split(".")[0] for n in found["saved"])) for found in told.values()}
    assert len(steps) >= 5
    assert any(name.endswith(".part") for found in told.values() for name in found["saved"])
