"""Models of the hub, without a hub: a local cache in its format, and its errors made up."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

from unlearn_suite import models
from unlearn_suite.errors import PrerequisiteError
from unlearn_suite.testing.tiny import save_tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REF = {"hf": "owner/name", "revision": COMMIT}


def test_a_snapshot_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def snapshot(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(save_tiny(tmp_path / "snapshot"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    said: list[str] = []
    model, _ = models.load(REF, torch.float32, "cpu", say=said.append)
    assert model.config.num_hidden_layers == 4
    assert (asked["repository"], asked["revision"]) == ("owner/name", COMMIT)
    assert "*.safetensors" in asked["allow_patterns"]
    assert not any("bin" in pattern or "pt" in pattern.split(".")[-1] for pattern in asked["allow_patterns"])
    assert said == [f"looking up owner/name at {COMMIT[:12]}"]


def test_a_repository_without_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "snapshot")
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(PrerequisiteError, match=r"no model\.safetensors"):
        models.local_folder(REF)


def http_error(kind: type[Exception]) -> Exception:
    response = SimpleNamespace(headers={}, request=None, status_code=403, text="", url="")
    return kind("no", response=response)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (http_error(errors.GatedRepoError), "hub-gated"),
        (http_error(errors.RepositoryNotFoundError), "hub-missing"),
        (http_error(errors.RevisionNotFoundError), "hub-revision"),
        (errors.HFValidationError("bad"), "hub-missing"),
        (errors.LocalEntryNotFoundError("offline"), "no-network"),
        (errors.OfflineModeIsEnabled("offline"), "no-network"),
        (type("ConnectError", (Exception,), {"__module__": "httpx._exceptions"})("gone"), "no-network"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk-full"),
        (RuntimeError("odd"), "hub"),
    ],
)
def test_every_failure_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, raised: Exception, code: str) -> None:
    def fail(*_: object, **__: object) -> str:
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(PrerequisiteError) as caught:
        models.load(REF, torch.float32, "cpu")
    assert caught.value.code == code
    assert caught.value.where == f"hf:owner/name@{COMMIT[:12]}"
    assert caught.value.hint


PROGRAM = """\
import sys
from unlearn_suite import models
from unlearn_suite.errors import SuiteError
try:
    print(models.local_folder({"hf": "owner/name", "revision": sys.argv[1]}))
except SuiteError as error:
    print(error.code)
"""


def test_offline_a_cached_commit_is_found_and_another_is_not(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / COMMIT
    save_tiny(snapshot)
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}

    def told(commit: str) -> str:
        command = [sys.executable, "-c", PROGRAM, commit]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()

    assert told(COMMIT) == str(snapshot)
    assert told(COMMIT[::-1]) == "no-network"
