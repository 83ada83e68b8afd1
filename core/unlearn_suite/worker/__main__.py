"""`python -m unlearn_suite.worker RUN_DIR CELL_FOLDER [--plugin FILE]...`: one cell in a process of its own.

Under torchrun (`torchrun --nproc-per-node 2 -m unlearn_suite.worker ...`) one cell on several processes.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from pathlib import Path


def main() -> int:
    """Exit code as the CLI's: 0 when the cell is done."""
    from ..plugins import load_catalog
    from ..runner import RecordProgress, follow_parent, run_cells
    from ..store import RunDir
    from ..study import Cell

    # torchrun hands its own standard input on, which may be empty or a terminal: only the pool's pipe tells something
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ
    if not together or stat.S_ISFIFO(os.fstat(0).st_mode):
        follow_parent()
    parser = argparse.ArgumentParser(prog="unlearn_suite.worker")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("cell_folder")
    parser.add_argument("--plugin", type=Path, action="append", default=[])
    arguments = parser.parse_args()

    run = RunDir.attach(arguments.run_dir)
    cell_dir = next((c for c in run.cells() if c.path.name == arguments.cell_folder), None)
    if cell_dir is None:
        parser.error(f"no folder {arguments.cell_folder!r} below {run.path / 'cells'}")
    cell = Cell.from_json(cell_dir.cell)
    catalog = load_catalog(arguments.plugin)
    if together:
        from .together import run_together

        return run_together(cell, run, cell_dir, catalog)
    from .execute import execute

    progress = RecordProgress(cell_dir, sys.stdout)
    return int(run_cells([cell], run, execute, catalog=catalog, workers=1, progress=progress))


if __name__ == "__main__":
    sys.exit(main())
