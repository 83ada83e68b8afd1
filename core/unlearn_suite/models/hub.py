"""Models of the Hugging Face hub, at a pinned commit, without their pickles."""

from __future__ import annotations

import errno
from pathlib import Path

from ..errors import PrerequisiteError
from .folder import SMALL_FILES, check_folder
from .refs import Say, silent

ALLOWED = ["*.safetensors", *(f"*{suffix}" for suffix in sorted(SMALL_FILES))]


def hub_folder(repository: str, revision: str, say: Say = silent) -> Path:
    """The local snapshot of a hub model; downloaded where it is not there yet.

    HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT and HF_TOKEN mean what they mean to huggingface_hub. Raises
    `PrerequisiteError`.
    """
    say(f"looking up {repository} at {revision[:12]}")
    folder = _snapshot(repository, revision, ALLOWED)
    check_folder(folder)
    return folder


def small_files(repository: str, revision: str) -> Path:
    """The local snapshot of a hub model with everything but its weights. Raises `PrerequisiteError`."""
    return _snapshot(repository, revision, [pattern for pattern in ALLOWED if pattern != "*.safetensors"])


def _snapshot(repository: str, revision: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise _explained(repository, revision, error) from error


def _explained(repository: str, revision: str, error: Exception) -> PrerequisiteError:
    where = f"hf:{repository}@{revision[:12]}"
    message, code, hint = _refusal(error) or _trouble(error)
    return PrerequisiteError(message, code=code, where=where, hint=hint)


def _refusal(error: Exception) -> tuple[str, str, str] | None:
    """What the hub said no to: (message, code, hint)."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        hint = "ask for access on its page, then `hf auth login` or set HF_TOKEN"
        return "the model's owner gives it only to those who asked", "hub-gated", hint
    if isinstance(error, errors.RevisionNotFoundError):
        return "the model has no such revision", "hub-revision", "give the full commit hash from its page"
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "check the spelling; a private model needs HF_TOKEN"
        return "the hub has no such model, or hides it from you", "hub-missing", hint
    if isinstance(error, errors.HFValidationError):
        return "this is no id of a hub model", "hub-missing", "write owner/name"
    return None


def _trouble(error: Exception) -> tuple[str, str, str]:
    """What went wrong on the way: (message, code, hint)."""
    from huggingface_hub import errors

    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full", "disk-full", "free some space, or point HF_HOME to another disk"
    offline = (errors.LocalEntryNotFoundError, ConnectionError, TimeoutError)
    if isinstance(error, offline) or _of_http_client(error):
        hint = "connect once, or copy the model here and use {path: FOLDER}"
        return "the model is not on this machine and the hub cannot be reached", "no-network", hint
    text = " ".join(str(error).split())[:200]
    return f"the download failed: {type(error).__name__}: {text}", "hub", "run the command again"


def _of_http_client(error: Exception) -> bool:
    """Whether an error of the connection itself comes out of the HTTP library that the hub client uses."""
    return type(error).__module__.partition(".")[0] in ("requests", "httpx", "httpx2", "httpcore", "urllib3")
