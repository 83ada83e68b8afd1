"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import PlanError, PrerequisiteError


def check_target(target: Path, force: bool, keep: Path) -> None:
    """Raise `PlanError` unless `target` is free, or `force` may replace the checkpoint that is there.

    `keep`: a folder that must not be replaced (the base model).
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise PlanError("this is a file, not a folder", code="target", where=str(target), hint="name a new folder")
    if not any(target.iterdir()):
        return
    if not force:
        message = "the folder is not empty"
        raise PlanError(message, code="target", where=str(target), hint="name a new folder, or give --force")
    if keep.resolve().is_relative_to(target.resolve()):
        message = "the folder holds the base model"
        raise PlanError(message, code="target", where=str(target), hint="name a new folder")
    if not (target / "config.json").is_file():
        message = "the folder holds something else than a model, which --force does not replace"
        raise PlanError(message, code="target", where=str(target), hint="name a new folder")


@contextmanager
def new_folder(target: Path, needed: int) -> Iterator[Path]:
    """Yield a folder beside `target` that becomes `target` at the end, in place of what was there.

    `needed`: bytes that will be written. Whatever goes wrong, `target` stays as it was and nothing else is
    left; what a killed process left is swept away by the next one. Raises `PrerequisiteError` when the disk
    is too small or another process writes the same folder.
    """
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name}.part"
    with _owned(target):
        try:
            shutil.rmtree(part, ignore_errors=True)
            _check_space(target, needed)
            part.mkdir()
            yield part
            _sync(part)
            _swap(part, target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


@contextmanager
def _owned(target: Path) -> Iterator[None]:
    path = target.parent / f".{target.name}.lock"
    try:
        lock = FileLock(path).acquire(timeout=0)
    except Timeout:
        message = "another process is writing this folder"
        hint = "wait until it ends, or name another folder"
        raise PrerequisiteError(message, code="target-locked", where=str(target), hint=hint) from None
    try:
        with lock:
            yield
    finally:
        path.unlink(missing_ok=True)


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        message = f"the disk is too small: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free"
        hint = "free some space or name a folder on another disk"
        raise PrerequisiteError(message, code="disk-full", where=str(target), hint=hint)


def _sync(folder: Path) -> None:
    """To the disk itself: a rename may reach it before the content does."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _swap(part: Path, target: Path) -> None:
    old = target.parent / f".{target.name}.old"
    if old.exists():
        shutil.rmtree(old)
    if target.exists():
        target.replace(old)
    try:
        part.replace(target)
    except OSError:
        if old.exists():
            old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
