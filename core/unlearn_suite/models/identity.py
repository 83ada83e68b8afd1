"""The content id of a model: equal only if the weights and the tokenizer are."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..plugins.registry import WheelAsset
from .folder import check_folder, identity_files
from .refs import Ref, source_of

_hashes: dict[tuple[str, int, int], str] = {}


def identity(ref: Ref) -> str:
    """The content id of a reference, without loading or downloading anything.

    An asset of a wheel: the pinned SHA-256 of its weights file. A hub model: id and commit. A folder:
    a SHA-256 over names and contents of configuration, tokenizer and weights, so that a copy elsewhere
    is the same model. Raises `PlanError` and `PrerequisiteError`.
    """
    source = source_of(ref)
    trusted = "+code" if ref.get("trust_remote_code") else ""
    if isinstance(source, WheelAsset):
        return f"sha256:{source.sha256}"
    if isinstance(source, Path):
        return f"folder:{_folder_hash(source, code=bool(trusted))}{trusted}"
    return f"hf:{source.hf}@{source.revision}{trusted}"


def _folder_hash(folder: Path, *, code: bool) -> str:
    check_folder(folder)
    digest = hashlib.sha256()
    for path in identity_files(folder, code=code):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered within the process while its size and time do not change."""
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with path.open("rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]
