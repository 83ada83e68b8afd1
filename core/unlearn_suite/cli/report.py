"""`unlearn-suite report RUN_DIR`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import debug_option, json_option, print_json


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@json_option
@debug_option
def report(run_dir: Path, as_json: bool) -> None:
    """Write the report of a run again.

    Also prints its table.
    """
    from rich.console import Console

    from ..report import print_table, write_report, write_summary
    from ..store import RunDir

    run = RunDir.attach(run_dir)
    summary = write_summary(run.path)
    page = write_report(run.path)
    if as_json:
        print_json({"run": str(run.path), "report": str(page), **json.loads(summary.read_text(encoding="utf-8"))})
        return
    print_table(run.path, Console())
    click.echo(f"report: {page}")
