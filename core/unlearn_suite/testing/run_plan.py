"""A plan from start to end on a tiny random model, as `unlearn-suite run` does it: a plugin's smoke test.

from unlearn_suite.testing.run_plan import run_plan

def test_the_smoke_plan_runs(tmp_path):
    ran = run_plan(Path("plans/smoke.yaml"), tmp_path)
    assert "perplexity" in ran.page
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ..cli import main


@dataclass(frozen=True)
class Ran:
    """A run that has ended: its folder, and all that was printed."""

    folder: Path
    told: str

    @cached_property
    def page(self) -> str:
        """The report, HTML."""
        return (self.folder / "report/index.html").read_text(encoding="utf-8")

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """One mapping for each arm, entry and value: `results` of summary.json."""
        summary = json.loads((self.folder / "results/summary.json").read_text(encoding="utf-8"))
        found: list[dict[str, Any]] = summary["results"]
        return found

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """One mapping for each example and value: the rows of records.parquet."""
        from pyarrow import parquet

        rows: list[dict[str, Any]] = parquet.read_table(self.folder / "results/records.parquet").to_pylist()
        return rows


def run_plan(plan: str | Path, folder: Path, *, code: int = 0, **model: Any) -> Ran:
    """Run a plan in `folder`, an empty folder or one with what the plan needs. `code`: the exit code that is right.

    `plan` is a plan's text, or a file, which is copied together with the folder it lies in. Each of its models that
    is a path where nothing lies becomes `tiny_model(**model)`. Raises AssertionError, with all that was printed, when
    it ends with another code.
    """
    from .tiny import save_tiny

    if isinstance(plan, Path):
        shutil.copytree(plan.parent, folder / plan.parent.name, dirs_exist_ok=True)
        file = folder / plan.parent.name / plan.name
    else:
        file = folder / "plan.yaml"
        file.write_text(plan, encoding="utf-8")
    words = yaml.safe_load(file.read_text(encoding="utf-8"))
    for told in (words.get("models") or {}).values():
        path = file.parent / str(told.get("path", "."))
        if not path.exists():
            save_tiny(path, **model)
    printed = io.StringIO()
    ended = 0
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main(["run", str(file.relative_to(folder))])
        except SystemExit as left:
            ended = left.code if isinstance(left.code, int) else int(left.code is not None)
    assert ended == code, f"unlearn-suite run ended with {ended}, not {code}:\n{printed.getvalue()}"
    return Ran(folder / "runs" / str(words.get("name", file.stem)), printed.getvalue())
