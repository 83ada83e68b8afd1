"""`export`, `apply` and `patch show`, and a target that is whole or untouched."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from unlearn_suite import models
from unlearn_suite.cli import main
from unlearn_suite.engine import patch
from unlearn_suite.models import export as export_module
from unlearn_suite.models.refs import parse_ref
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

NAME = "model.layers.1.mlp.down_proj.weight"


class Run:
    """A run of three cells on a sharded tiny model: the base, one that is done, one that is not."""

    def __init__(self, path: Path) -> None:
        self.path, self.base = path / "runs" / "small", path / "base"
        tiny_model().save_pretrained(self.base, max_shard_size="40KB")
        tiny_tokenizer().save_pretrained(self.base)
        self.path.mkdir(parents=True)
        (self.path / "run.json").write_text(json.dumps({"format": 1, "name": "small"}))
        self.plain = self.cell("base", "aaaa000000", [])
        stage = {"use": "x/push", "with": {}, "train": {"steps": 5}}
        self.done = self.cell("push", "aaaa111111", [stage])
        self.waiting = self.cell("push-more", "bbbb222222", [stage])
        model, _ = models.load({"path": str(self.base)}, torch.float32, "cpu")
        self.original = dict(model.named_parameters())[NAME].detach().clone()
        with torch.no_grad():
            dict(model.named_parameters())[NAME].mul_(1.5)
        provenance = {key: self.cell_json(self.done)[key] for key in ("id", "problem", "arm", "stages", "model_ref")}
        patch.save(self.done / "patch.safetensors", model, {NAME: self.original}, provenance)

    def cell(self, arm: str, digest: str, stages: list[Any]) -> Path:
        parts = {"problem": "letters", "model": "tiny", "arm": arm, "seed": 0, "id": digest}
        folder = self.path / "cells" / "{problem}.{model}.{arm}.s{seed}.{id}".format_map(parts)
        folder.mkdir(parents=True)
        content = {**parts, "model_ref": {"path": str(self.base)}, "stages": stages}
        (folder / "cell.json").write_text(json.dumps(content))
        return folder

    def cell_json(self, folder: Path) -> dict[str, Any]:
        return dict(json.loads((folder / "cell.json").read_text()))

    def assert_exported(self, folder: Path) -> None:
        state = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
        assert torch.equal(state[NAME], self.original * 1.5)
        assert (folder / "unlearning.json").is_file() and (folder / "tokenizer.json").is_file()


@pytest.fixture()
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture()
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    def called(*arguments: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=left.value.code, out=out, err=err)

    return called


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in {"base", "runs"})


@pytest.mark.parametrize("text", ["aaaa1", "aaaa111111", "letters.tiny.push.s0"])
def test_a_cell_by_the_beginning_of_its_id_or_name(run, call, tmp_path, text):
    done = call("export", text, "--run", run.path, "--to", tmp_path / "out")
    assert done.code == 0 and done.out == f"{tmp_path / 'out'}\n"
    run.assert_exported(tmp_path / "out")
    assert left(tmp_path) == ["out"]
    assert "plan `small`" in (tmp_path / "out" / "README.md").read_text()


def test_a_cell_by_its_folder_and_a_base_that_has_moved(run, call, tmp_path):
    assert call("export", run.done, "--to", tmp_path / "out").code == 0
    moved = run.base.rename(tmp_path / "moved")
    assert call("export", run.done, "--to", tmp_path / "two").code == 4
    assert call("export", run.done, "--to", tmp_path / "two", "--base", moved).code == 0
    run.assert_exported(tmp_path / "two")


def test_what_was_written_for_programs(run, call, tmp_path):
    done = call("export", run.done, "--to", tmp_path / "out", "--json")
    told = json.loads(done.out)
    assert done.code == 0 and told["folder"] == str(tmp_path / "out") and told["tensors"] and told["lost"] == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("aaaa", "may be several cells"),
        ("cccc", "is no cell of this run"),
        ("aaaa0", "trains nothing"),
        ("bbbb", "no result yet (it is pending)"),
    ],
)
def test_cells_that_cannot_be_exported(run, call, tmp_path, text, told):
    done = call("export", text, "--run", run.path, "--to", tmp_path / "out")
    assert done.code == 2 and told in done.err and "hint:" in done.err
    assert not left(tmp_path)


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ({"from": "random", "control": True}, "its model is random weights"),
        ({"from": "start", "control": False, "key": "abc"}, "shared/starts/abc/patch.safetensors"),
    ],
)
def test_what_an_untrained_cell_is(run, call, tmp_path, start, told):
    (cell,) = run.path.glob("cells/*aaaa0*/cell.json")
    cell.write_text(json.dumps({**json.loads(cell.read_text()), "start": start}))
    done = call("export", cell.parent, "--to", tmp_path / "out")
    assert done.code == 2 and told in done.err


def test_a_cell_without_its_run(run, call, tmp_path):
    done = call("export", "aaaa1", "--to", tmp_path / "out")
    assert done.code == 2 and "--run RUN" in done.err


def test_apply(run, call, tmp_path):
    done = call("apply", run.done / "patch.safetensors", "--base", run.base, "--to", tmp_path / "out")
    assert done.code == 0, done.err
    run.assert_exported(tmp_path / "out")
    done = call("apply", run.done, run.done, "--base", run.base, "--to", tmp_path / "two")
    assert done.code == 4 and NAME in done.err and not (tmp_path / "two").exists()
    done = call("apply", run.done, "--base", tmp_path / "out", "--to", tmp_path / "two")
    assert done.code == 4 and "another base model" in done.err
    done = call("apply", run.done, "--base", "no-such", "--to", tmp_path / "two")
    assert done.code == 2 and "neither a model asset nor a folder" in done.err


def test_show(run, call):
    done = call("patch", "show", run.done, "--base", run.base)
    assert done.code == 0 and f"{NAME}  F32 [32, 48]  moved by 50 %" in done.out and "x/push, 5 steps" in done.out
    shown = json.loads(call("patch", "show", run.done, "--json").out)
    assert shown["tensors"][NAME]["shape"] == [32, 48] and shown["provenance"]["arm"] == "push"


def test_references_that_people_type(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert parse_ref("smollm2-135m-instruct") == {"asset": "smollm2-135m-instruct"}
    assert parse_ref(f"owner/name@{commit}") == {"hf": "owner/name", "revision": commit}
    assert parse_ref(str(tmp_path)) == {"path": str(tmp_path.resolve())}


# --- the target


def test_a_folder_that_is_not_empty_needs_force(run, call, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    assert call("export", run.done, "--to", target).code == 0  # empty is free
    (target / "old.txt").write_text("old")
    refused = call("export", run.done, "--to", target)
    assert refused.code == 2 and "--force" in refused.err and (target / "old.txt").exists()
    assert call("export", run.done, "--to", target, "--force").code == 0
    run.assert_exported(target)
    assert left(tmp_path) == ["out"] and not (target / "old.txt").exists()


def test_what_force_does_not_replace(run, call, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for target, told in [(run.base, "base model"), (tmp_path, "base model"), (tmp_path / "notes", "something else")]:
        done = call("export", run.done, "--to", target, "--force")
        assert done.code == 2 and told in done.err
    assert call("export", run.done, "--to", tmp_path / "file", "--force").code == 2
    assert left(tmp_path) == ["file", "notes"] and (tmp_path / "notes" / "a.txt").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_export_leaves_nothing(run, call, tmp_path, monkeypatch, number, code):
    whole, seen = export_module._write_shard, []

    def interrupted(*arguments: Any) -> None:
        whole(*arguments)
        seen.append(left(tmp_path))
        if len(seen) == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(export_module, "_write_shard", interrupted)
    done = call("export", run.done, "--to", tmp_path / "out")
    assert done.code == code and "nothing was written" in done.err
    assert len(seen) == 2 and ".out.part" in seen[1] and not left(tmp_path)


def test_a_failed_export_leaves_what_was_there(run, call, tmp_path, monkeypatch):
    assert call("export", run.done, "--to", tmp_path / "out").code == 0
    (tmp_path / "out" / "old.txt").write_text("old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "_write_shard", full)
    done = call("export", run.done, "--to", tmp_path / "out", "--force")
    assert done.code == 4 and "disk is full" in done.err
    assert left(tmp_path) == ["out"] and (tmp_path / "out" / "old.txt").exists()


def test_the_disk_is_asked_first(run, call, tmp_path, monkeypatch):
    needed = sum(path.stat().st_size for path in run.base.glob("*.safetensors"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    done = call("export", run.done, "--to", tmp_path / "out")
    assert done.code == 4 and "the disk is too small" in done.err and not left(tmp_path)


def test_one_writer_at_a_time_and_leftovers_are_swept(run, call, tmp_path):
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "junk.safetensors").write_text("of a killed process")
    with FileLock(tmp_path / ".out.lock"):
        done = call("export", run.done, "--to", tmp_path / "out")
        assert done.code == 4 and "another process is writing" in done.err
    assert call("export", run.done, "--to", tmp_path / "out").code == 0
    assert left(tmp_path) == ["out"] and not (tmp_path / "out" / "junk.safetensors").exists()
