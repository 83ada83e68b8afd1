"""Room 2: installed distributions -> a `Catalog` of what they provide, and one report per plugin.

A plugin may be anything: it may be broken, too old, print, exit. It shows in its report and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .catalog import Catalog, load_catalog
from .entry import Entry, Kind, PluginReport, Status
from .frames import plugin_frame
from .guard import blame, load_target, require_extra

if TYPE_CHECKING:
    from .registry import Registry, read_registry

__all__ = [
    "Catalog",
    "Entry",
    "Kind",
    "PluginReport",
    "Registry",
    "Status",
    "blame",
    "load_catalog",
    "load_target",
    "plugin_frame",
    "read_registry",
    "require_extra",
]


def __getattr__(name: str) -> Any:
    if name in ("Registry", "read_registry"):  # a command that does not read the registry need not build its models
        from . import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
