"""Files that are whole or absent, and lists that lose at most the line that was being written.

A file is written beside its place and renamed; a kill at any moment leaves the old one or the new one.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import PrerequisiteError

Json = dict[str, Any]

_REASONS = {
    errno.ENOSPC: ("disk-full", "disk full", "free some space and run the same command again"),
    errno.EDQUOT: ("disk-full", "disk quota used up", "free some space and run the same command again"),
    errno.EACCES: ("not-writable", "no permission to write here", "choose a folder that you may write to"),
    errno.EPERM: ("not-writable", "no permission to write here", "choose a folder that you may write to"),
    errno.EROFS: ("not-writable", "the file system is read-only", "choose a folder that you may write to"),
    errno.ENOTDIR: ("not-a-folder", "a file stands where a folder is due", "choose another folder"),
    errno.EEXIST: ("not-a-folder", "a file stands where a folder is due", "choose another folder"),
}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a missing permission and a read-only disk into `PrerequisiteError` about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        code, message, hint = _REASONS[error.errno]
        raise PrerequisiteError(message, code=code, where=str(path), hint=hint) from error


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a name in `path`'s folder (made when missing); the file written there becomes `path` at the end.

    `durable`: also survive a power failure, not only a killed process (an fsync, some milliseconds).
    """
    temporary = path.parent / f".{path.name[:64]}.{secrets.token_hex(6)}.tmp"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if durable:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105 - one seam, which tests can break
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Raises `PrerequisiteError` when the disk is full or not writable."""
    with replacing(path, durable) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """UTF-8, newlines as they are."""
    write_bytes(path, text.encode("utf-8"), durable)


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Readable JSON, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", durable)


def read_json(path: Path) -> Any:
    """Raises `PrerequisiteError` when the file is not JSON; OSError when it is missing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PrerequisiteError(
            f"the file is not valid JSON ({error})",
            code="corrupt-file",
            where=str(path),
            hint="delete it and run the same command again",
        ) from error


def jsonl_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One compact JSON object per line."""
    lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    return "".join(lines).encode("utf-8")


def append_jsonl(path: Path, *rows: Mapping[str, Any], durable: bool = False) -> None:
    """Add rows at the end. They are out of this process at return, and on the disk too with `durable`.

    A torn last line (from a kill in the middle of writing) is cut off first, so that it cannot join with
    the new row. One process writes a file at a time.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end and not _ends_whole(file, end):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(jsonl_bytes(rows))
            file.flush()
            if durable:
                os.fsync(file.fileno())


def _ends_whole(file: Any, end: int) -> bool:
    file.seek(end - 1)
    return bool(file.read(1) == b"\n")


def read_jsonl(path: Path, on_torn: Callable[[str], None] | None = None) -> list[Json]:
    """All rows; [] when the file is missing. A torn last line is dropped and told to `on_torn`.

    Raises `PrerequisiteError` for a line that cannot be read anywhere else.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    tail = lines.pop()
    if tail and on_torn:
        on_torn(f"{path}: the last line was only half written and is left out")
    rows: list[Json] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise PrerequisiteError(
                "the line is not valid JSON",
                code="corrupt-file",
                where=f"{path}:{number}",
                hint="delete the file and run the same command again",
            ) from error
    return rows
