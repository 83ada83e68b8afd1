"""Room 7: the run directory. Everything a run leaves is a plain file, written atomically."""

from __future__ import annotations

from .atomic import append_jsonl, read_jsonl, write_bytes, write_json, write_text
from .cell_dir import CellDir
from .records import read_records, write_records
from .run_dir import RunDir

__all__ = [
    "CellDir",
    "RunDir",
    "append_jsonl",
    "read_jsonl",
    "read_records",
    "write_bytes",
    "write_json",
    "write_records",
    "write_text",
]
