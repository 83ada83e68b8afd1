"""What a plugin should not do while it is loaded, and on which line it does it: print, and import torch."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from .frames import calling_frame


class Manners(MetaPathFinder):
    """Watches one plugin. Nothing is kept from it: what it prints is not shown, what it imports is imported."""

    def __init__(self, roots: Sequence[Path], may_import_torch: bool) -> None:
        self.roots = roots
        self.printed = _Heard(roots)
        self.may_import_torch = may_import_torch or "torch" in sys.modules
        self.torch: str | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        sys.meta_path.insert(0, self)
        try:
            with contextlib.redirect_stdout(self.printed):
                yield
        finally:
            sys.meta_path.remove(self)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Finds nothing; notes the first import of torch."""
        if fullname == "torch" and self.torch is None:
            self.torch = calling_frame(self.roots)

    def notes(self) -> tuple[str, ...]:
        """One text for each, as told after the plugin's name: what, where, and what to do."""
        found = []
        if text := " ".join(self.printed.getvalue().split()):
            found.append(f"prints while it is loaded: {text[:200]!r} ({_at(self.printed.where)}take that out)")
        if self.torch is not None and not self.may_import_torch:
            what = "imports torch while it is loaded, which makes every command slow"
            found.append(f"{what} ({_at(self.torch)}import it in a file that only `load` of a spec names)")
        return tuple(found)


class _Heard(io.StringIO):
    """Takes what is printed, and where that begins."""

    def __init__(self, roots: Sequence[Path]) -> None:
        super().__init__()
        self.roots = roots
        self.where = ""

    def write(self, text: str) -> int:
        if text.strip() and not self.where:
            self.where = calling_frame(self.roots)
        return super().write(text)


def _at(where: str) -> str:
    return f"{where}: " if where else ""
