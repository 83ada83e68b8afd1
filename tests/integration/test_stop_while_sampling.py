"""A stop that is asked for while an objective lets the model write does not wait for the last text."""

from __future__ import annotations

from pathlib import Path

from unlearn_suite.testing.run_plan import run_plan

PLAN = """\
plan: 1
name: writes
plugins: [./writes.py]
models: {tiny: {path: model}}
problems:
  - name: words
    data: {forget: {use: text, with: {path: words.txt}}}
    metrics: [{use: perplexity, data: forget, want: higher}]
arms:
  writer: {stages: [{use: write, steps: 0}]}
compute: {device: cpu, eval_tokens: 16}
"""
PLUGIN = """
import os, signal
from pathlib import Path
from unlearn_suite import Objective, ObjectiveSpec, Requirements, hookimpl

class Write(Objective):
    def requirements(self, shape):
        return Requirements(trainable=shape.select("mlp_out", [0]), reads=0)
    def setup(self, ctx):
        if not Path("asked").exists():
            Path("asked").touch()
            os.kill(os.getpid(), signal.SIGINT)
        texts = ctx.services.sample(
            ["one"] * 20, n=1, max_new_tokens=4, temperature=1.0, top_p=1.0, seed=0
        )
        Path("written").write_text(str(len(texts)))
    def step(self, batch):
        return {}

@hookimpl
def register_objectives(register):
    register(ObjectiveSpec("write", "let the model write", f"{__name__}:Write", roles=("forget",)))
"""


def test_sampling_ends_when_a_stop_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("one line\n\nanother\n")
    (tmp_path / "writes.py").write_text(PLUGIN)
    assert "0 of 1 cell done" in run_plan(PLAN, tmp_path, code=130).told
    assert (tmp_path / "asked").exists() and not (tmp_path / "written").exists()
    assert "1 of 1 cell done" in run_plan(PLAN, tmp_path).told
    assert (tmp_path / "written").read_text() == "20"
