"""Room 8: from a run directory to tables, figures and one page. The names load their code on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .html import write_report
    from .summary import write_summary
    from .tables import print_table

_LAZY = {"print_table": "tables", "write_report": "html", "write_summary": "summary"}

__all__ = ["print_table", "write_report", "write_summary"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
