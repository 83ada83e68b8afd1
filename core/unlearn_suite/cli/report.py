"""`unlearn-suite report RUN_DIR`."""

from __future__ import annotations

from pathlib import Path

import click

from .options import debug_option


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@debug_option
def report(run_dir: Path) -> None:
    """Write the report of a run again.

    Also prints its table.
    """
    from rich.console import Console

    from ..report import print_table, write_report, write_summary
    from ..store import RunDir

    run = RunDir.attach(run_dir)
    write_summary(run.path)
    page = write_report(run.path)
    print_table(run.path, Console())
    click.echo(f"report: {page}")
