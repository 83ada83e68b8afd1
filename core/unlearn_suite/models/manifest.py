"""MANIFEST.json: what a prepared folder must hold, written last and checked whenever it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .identity import file_sha256

NAME = "MANIFEST.json"


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Record size and SHA-256 of every file of a folder, with `about` beside them."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    }
    text = json.dumps({"manifest": 1, **about, "files": files}, indent=2)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def fault_of(folder: Path) -> str:
    """What is wrong with a folder, "" when it is as its manifest says. Each file is hashed once per process."""
    try:
        files = json.loads((folder / NAME).read_text(encoding="utf-8"))["files"]
        recorded = {name: (int(known["size"]), str(known["sha256"])) for name, known in files.items()}
    except FileNotFoundError:
        return "it has no manifest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"
    for name, (size, sha256) in recorded.items():
        try:
            found = (folder / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes instead of {size}"
            if file_sha256(folder / name) != sha256:
                return f"{name} has another SHA-256 than when it was made"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return "" if recorded else "its manifest names no file"
