"""What an objective (or the engine) has to show of a stage: titled tables and curves, kept in report.json.

The page shows them without knowing who wrote them. The file is {"report": 1, "items": [...]}, each item one of

    {"kind": "table", "title", "note", "columns": [text], "rows": [[number | text | null]]}
    {"kind": "series", "title", "note", "x": text, "y": text, "lines": {name: [[x, y], ...]}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import PrerequisiteError

FILE = "report.json"

Value = float | int | str | None
"""a cell of a table"""


class StageReport:
    """`report.json` of one stage, written anew at every call. A title that was given before is replaced.

    Raises `PrerequisiteError` (`disk`) when it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        # a resumed stage keeps what it showed before the interruption, unless a power failure emptied the file
        self._items: dict[str, dict[str, Any]] = {}
        with suppress(FileNotFoundError, ValueError):
            self._items = {item["title"]: item for item in json.loads(self._path.read_text("utf-8"))["items"]}

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Value]], note: str = "") -> None:
        """Show a table. A number that is not finite is shown as nothing. Raises `ValueError` for a row that is not as
        long as `columns`."""
        if any(len(row) != len(columns) for row in rows):
            raise ValueError(f"a row of table {title!r} has another length than its {len(columns)} columns")
        cells = [[_plain(value) for value in row] for row in rows]
        self._add(title, {"kind": "table", "note": note, "columns": list(columns), "rows": cells})

    def series(
        self,
        title: str,
        lines: Mapping[str, Sequence[tuple[float, float]]],
        *,
        x: str,
        y: str,
        note: str = "",
    ) -> None:
        """Show a chart of {name: [(x, y), ...]}; `x` and `y` are the axes' names. Points that are not finite are
        left out."""
        points = {
            name: [[float(a), float(b)] for a, b in line if math.isfinite(a) and math.isfinite(b)]
            for name, line in lines.items()
        }
        self._add(title, {"kind": "series", "note": note, "x": x, "y": y, "lines": points})

    def _add(self, title: str, item: dict[str, Any]) -> None:
        self._items[title] = {"title": title, **item}
        content = json.dumps({"report": 1, "items": list(self._items.values())}, indent=1)
        temporary = self._path.with_suffix(".part")
        try:
            temporary.write_text(content, encoding="utf-8")
            temporary.replace(self._path)
        except OSError as error:  # ours, and the call comes from within an objective's code
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise PrerequisiteError(
                f"cannot write a stage's report: {error.strerror}",
                code="disk",
                where=str(self._path),
                hint="let the folder be written to, make room on the disk, and run the same command again",
            ) from error


def _plain(value: Value) -> Value:
    """A JSON value; None for a number that is not finite."""
    if value is None or isinstance(value, str):
        return value
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if isinstance(value, int) else number
