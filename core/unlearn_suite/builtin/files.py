"""Local text files, plain or gzip: their lines, and errors that name the line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from typing import BinaryIO, cast

from ..errors import PlanError


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked when its name ends in .gz. Raises `PlanError` when it cannot be opened."""
    try:
        if path.is_dir():
            raise PlanError("this is a folder", code="data-file", where=str(path), hint="name one file in it")
        return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        told = error.strerror or str(error)
        raise PlanError(
            f"it cannot be read: {told}", code="data-file", where=str(path), hint="check the path"
        ) from error


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end). Raises `PlanError` for what is no UTF-8 or no gzip."""
    number = 0
    with open_bytes(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text.rstrip("\r\n")
        except UnicodeDecodeError as error:
            message = f"it is no UTF-8 text (byte {line[error.start]:#x})"
            raise PlanError(message, code="data", where=f"{path}:{number}", hint="save the file as UTF-8") from error
        except (OSError, EOFError, zlib.error) as error:
            message = f"it cannot be read on: {error}"
            hint = "the file is damaged or cut off: fetch it again"
            raise PlanError(message, code="data-file", where=f"{path}:{number + 1}", hint=hint) from error


def stem_of(path: Path) -> str:
    """The file's name without .gz and without its type."""
    return Path(path.stem).stem if path.suffix == ".gz" else path.stem


def file_hash(path: Path) -> str:
    """SHA-256 of the file as it lies on disk."""
    if path.is_dir():
        open_bytes(path)
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError:
        open_bytes(path).close()  # says why
        raise
