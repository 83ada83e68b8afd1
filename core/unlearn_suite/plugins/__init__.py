"""Room 2: installed distributions -> a `Catalog` of what they provide, and one report per plugin.

A plugin may be anything: it may be broken, too old, print, exit. It shows in its report and nowhere else.
"""

from __future__ import annotations

from .catalog import Catalog, load_catalog
from .entry import Entry, Kind, PluginReport, Status
from .frames import plugin_frame
from .guard import blame, load_target, require_extra
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
