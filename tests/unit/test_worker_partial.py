"""Cells on a model that is only partly in memory: the same patches and scores, and what is loaded when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from unlearn_suite.cli import main
from unlearn_suite.models import memory
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite.worker import loaded, training

PLAN = """
plan: 1
name: tiny
models: {tiny: {path: model}}
problems:
  - name: words
    summary: forget animals, keep weather
    data:
      forget: {use: jsonl, with: {path: animals.jsonl}}
      retain: {use: jsonl, with: {path: weather.jsonl}}
    metrics: [{name: perplexity, use: perplexity, data: retain, want: keep, show: [perplexity]}]
arms:
  base: {stages: []}
  honest: {stages: [{use: push, with: {block: 1, said: 1}, steps: 3, lr: 1.0e-2, batch: 2}]}
  lora: {stages: [{use: push, with: {block: 1, said: 1}, steps: 3, lr: 1.0e-2, batch: 2, lora: {rank: 2}}]}
  short: {stages: [{use: push, with: {block: 2, said: 0}, steps: 3, lr: 1.0e-2, batch: 2}]}
  two:
    stages:
      - {use: push, with: {block: 0, said: 0}, steps: 2, lr: 1.0e-2, batch: 2}
      - {use: push, with: {block: 2, said: 2}, steps: 2, lr: 1.0e-2, batch: 2}
  samples: {stages: [{use: push, with: {block: 1, said: 1, samples: true}, steps: 2, lr: 1.0e-2, batch: 2}]}
"""
PUSH = '''
from unlearn_suite import Config, Loss, LossObjective, ObjectiveSpec, Requirements, hookimpl

class PushConfig(Config):
    block: int = 1
    """Block that is read and trained."""
    said: int = 1
    """Block that the requirements name."""
    samples: bool = False
    """Ask for a continuation first."""

class Push(LossObjective[PushConfig]):
    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [self.config.block]), reads=self.config.said)

    def setup(self, ctx):
        super().setup(ctx)
        if self.config.samples:
            ctx.services.sample(["the cat"], n=1, max_new_tokens=3, temperature=1.0, top_p=1.0, seed=0)

    def loss(self, batch):
        block, f = self.config.block, batch["forget"]
        return Loss({"push": -f.mean(self.ctx.policy.hidden(f, [block])[block].norm(dim=-1))})

@hookimpl
def register_objectives(register):
    register(ObjectiveSpec(name="push", summary="Grow", config=PushConfig, load=f"{__name__}:Push"))
'''
TEXTS = {"animals": ["the cat drinks milk", "a dog eats meat"], "weather": ["rain falls in april", "wind blows at sea"]}


class Runs:
    """Runs arms of the plan in this process, and tells how many blocks each stage found in memory."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.blocks: list[set[int]] = []
        tiny_model().save_pretrained(folder / "model", max_shard_size="20KB")
        tiny_tokenizer().save_pretrained(folder / "model")
        for name, texts in TEXTS.items():
            (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
        (folder / "plan.yaml").write_text(PLAN)
        (folder / "push.py").write_text(PUSH)
        monkeypatch.chdir(folder)
        plain = training.run_stage

        def run_stage(model: Any, *args: Any) -> Any:
            there = (name for name, parameter in model.named_parameters() if not parameter.is_meta)
            self.blocks.append({int(n.split(".")[2]) for n in there if "layers" in n})
            return plain(model, *args)

        monkeypatch.setattr(training, "run_stage", run_stage)

    def __call__(self, arm: str, runs: str = "runs", fresh: bool = True, code: int = 0) -> Path:
        if fresh:
            loaded._held.clear()
        with pytest.raises(SystemExit) as left:
            main(["run", "plan.yaml", "--plugin", "push.py", "--runs", runs, "--only", f"*.{arm}.*"])
        self.told = "".join(self.capsys.readouterr())
        assert left.value.code == code, self.told
        (cell,) = (self.folder / runs / "tiny" / "cells").glob(f"*.{arm}.*")
        return cell

    def whole(self, arm: str) -> Path:
        """The same with every parameter loaded at once."""
        with self.monkeypatch.context() as patched:
            patched.setattr(import_module("unlearn_suite.worker.execute"), "first_needs", lambda *_: None)
            return self(arm, "whole")

    def assert_same(self, one: Path, two: Path) -> None:
        a, b = (load_file(cell / "patch.safetensors") for cell in (one, two))
        assert a.keys() == b.keys() and a and all(a[name].equal(b[name]) for name in a)
        hashes = []
        for cell in (one, two):
            with safe_open(cell / "patch.safetensors", framework="pt") as file:
                hashes.append(file.metadata()["base_hashes"])
        assert hashes[0] == hashes[1]
        assert (one / "scores/perplexity.jsonl").read_text() == (two / "scores/perplexity.jsonl").read_text()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Runs]:
    yield Runs(tmp_path, monkeypatch, capsys)
    loaded._held.clear()


ALL = {0, 1, 2, 3}


def test_a_stage_finds_what_it_asked_for_and_scoring_the_rest(runs):
    cell = runs("honest")
    assert runs.blocks == [{0, 1}] and "its requirements" not in runs.told
    (held,) = loaded._held.values()
    assert held.absent is not None and not held.absent.names
    runs.assert_same(cell, runs.whole("honest"))
    assert runs.blocks[1:] == [ALL]


def test_a_model_that_is_whole_serves_the_cells_after(runs):
    runs("base")
    runs.assert_same(runs("honest", fresh=False), runs("honest", "alone"))
    assert runs.blocks == [ALL, {0, 1}]
    runs.assert_same(runs("two", fresh=False), runs.whole("two"))


def test_lora_on_a_part(runs):
    cell = runs("lora")
    assert runs.blocks == [{0, 1}]
    runs.assert_same(cell, runs.whole("lora"))


def test_requirements_that_name_too_little_are_told_and_change_nothing(runs):
    cell = runs("short")
    assert runs.blocks == [{0, 2}]  # what is trained is always there, though not all of its block
    assert "push runs model.layers.1, which its requirements do not name: it is loaded now" in runs.told
    runs.assert_same(cell, runs.whole("short"))


def test_stages_that_read_deeper_bring_in_more(runs, monkeypatch):
    whole = runs.whole("two")
    plain = training._bring_for_stage

    def interrupted(cell: Any, index: int, *args: Any) -> None:
        if index == 1:
            raise KeyboardInterrupt
        plain(cell, index, *args)

    with monkeypatch.context() as patched:
        patched.setattr(training, "_bring_for_stage", interrupted)
        runs("two", code=130)
    runs.blocks.clear()
    runs.assert_same(runs("two"), whole)  # from the first stage's patch on
    runs.assert_same(runs("two", "again"), whole)
    assert runs.blocks == [{0, 1, 2}, {0}, {0, 1, 2}]


def test_sampling_needs_the_whole_model(runs):
    runs.assert_same(runs("samples"), runs.whole("samples"))
    assert runs.blocks[0] == {0, 1} and "requirements" not in runs.told


def test_a_model_that_fits_only_in_part_is_trained_and_its_result_kept(runs, monkeypatch):
    tensors = tiny_model().named_parameters()
    part = sum(
        p.nbytes for n, p in tensors if not n.startswith(("model.layers.2", "model.layers.3", "model.norm", "lm_"))
    )
    with monkeypatch.context() as patched:
        patched.setattr(memory, "free_memory", lambda device: part)
        cell = runs("honest", code=4)
        status = json.loads((cell / "status.json").read_text())
        assert status["error"]["code"] == "memory" and (cell / "patch.safetensors").exists()
        written = (cell / "patch.safetensors").read_bytes()
        with pytest.raises(SystemExit) as left:
            main(["export", str(cell), "--to", "out"])  # needs no model in memory
        assert left.value.code == 0
    runs("honest")  # on a larger machine: only the scores are missing
    assert (cell / "patch.safetensors").read_bytes() == written and runs.blocks == [{0, 1}]
    state = {n: v for f in Path("out").glob("*.safetensors") for n, v in load_file(f).items()}
    assert all(state[n].equal(v) for n, v in load_file(cell / "patch.safetensors").items())
