"""Where in a plugin's own files something went wrong."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .entry import Entry

HOST_PACKAGE = "unlearn_suite"


def package_roots(module: str) -> tuple[Path, ...]:
    """The folders (or the one file) of a module's package, found without importing the module.

    For a plain module inside a package that is the folder it lies in. () when there is no such module.
    """
    top, *inner = module.split(".")
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return ()
    if found is None:
        return ()
    bases = [Path(folder) for folder in found.submodule_search_locations or ()]
    if not bases:
        return (Path(found.origin),) if found.origin else ()
    for parts in (inner, inner[:-1]):
        folders = [folder for base in bases if (folder := base.joinpath(*parts)).is_dir()]
        if folders:
            return tuple(folders)
    return tuple(bases)


def target_roots(targets: Iterable[str]) -> tuple[Path, ...]:
    """The top-level packages of "package.module:name" targets, but for the host's own."""
    tops = dict.fromkeys(target.partition(":")[0].partition(".")[0] for target in targets)
    return tuple(root for top in tops if top != HOST_PACKAGE for root in package_roots(top))


def last_frame(error: BaseException, roots: Sequence[Path]) -> str:
    """ "file:line" of the innermost frame inside `roots`, "" when no frame is."""
    if isinstance(error, SyntaxError) and error.filename and _inside(error.filename, roots):
        return place(error.filename, error.lineno or 0)
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _inside(frame.f_code.co_filename, roots):
            found = place(frame.f_code.co_filename, line)
    return found


def calling_frame(roots: Sequence[Path]) -> str:
    """ "file:line" of the innermost frame inside `roots` of what runs now, "" when no frame is."""
    frame = sys._getframe(1)
    while frame is not None:
        if _inside(frame.f_code.co_filename, roots):
            return place(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def plugin_frame(error: BaseException, entry: Entry) -> str:
    """ "file:line" of the innermost frame inside the plugin's package, "" when it has none."""
    return last_frame(error, entry.roots)


def place(filename: str, line: int) -> str:
    """file:line, the file as seen from the current folder when that is shorter."""
    try:
        relative = os.path.relpath(filename)
    except (ValueError, OSError):  # another drive, or a current folder that is gone
        relative = ".."
    return f"{filename if relative.startswith('..') else relative}:{line}"


def describe(error: BaseException) -> str:
    """ "Type: text" on one line; an exception whose own text raises is only named."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    name = type(error).__name__
    return f"{name}: {text[:500]}" if text else name


def _inside(filename: str, roots: Sequence[Path]) -> bool:
    path = os.path.realpath(filename)
    return any(path == root or path.startswith(root + os.sep) for root in map(os.path.realpath, roots))
