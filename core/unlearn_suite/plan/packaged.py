"""YAML files that plugins ship inside their packages, and how a plan's own words are laid over them."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from importlib.resources import files
from pathlib import Path

from .text import Node


def packaged_file(target: str) -> Path:
    """The file of "package:path/in/package.yaml", from here when that is shorter to read.

    Raises ImportError, TypeError or ValueError when there is no such package.
    """
    package, _, inside = target.partition(":")
    module = import_module(package)
    # beside a package's (or a single plugin file's) code
    path = Path(module.__file__).parent / inside if module.__file__ else Path(str(files(package).joinpath(inside)))
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else Path(relative)


def merge(base: Node, over: Node) -> Node:
    """Deep merge: mappings key by key, anything else replaced. A change of `use` replaces the whole entry."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    use, new_use = base.under("use"), over.under("use")
    if use is not None and new_use is not None and use.value != new_use.value:
        return over
    items = dict(base.map)
    for key, child in over.map.items():
        items[key] = merge(items[key], child) if key in items else child
    return replace(over, value=items)
