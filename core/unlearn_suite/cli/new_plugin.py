"""`unlearn-suite plugins new NAME --kind KIND`."""

from __future__ import annotations

from pathlib import Path

import click

from .options import debug_option, json_option, print_json

KINDS = ("objective", "dataset", "metric", "problem")


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What the plugin brings.")
@click.option(
    "--to",
    "into",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default="here",
    help="Folder to write the plugin's own folder into.",
)
@json_option
@debug_option
def new(name: str, kind: str, into: Path, as_json: bool) -> None:
    """Write a new plugin: a small, complete distribution.

    It has an entry point, options, a smoke plan and tests, and works as it is.
    """
    from ..testing.new_plugin import write_plugin

    folder = write_plugin(name, kind, into)
    brought = folder.name.removeprefix("unlearn-suite-")
    if as_json:
        print_json({"folder": str(folder), "distribution": folder.name, "kind": kind, "name": brought})
        return
    click.echo(f"{folder}: a distribution with the {kind} {brought!r}")
    click.echo(f"next: cd {folder} && pip install -e '.[test]' && pytest")
