"""`unlearn-suite plugins new NAME --kind KIND`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ..errors import PlanError
from .options import debug_option, json_option, print_json

if TYPE_CHECKING:
    from ..plugins.entry import Kind

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
    from ..plugins import load_catalog
    from ..testing.new_plugin import write_plugin

    for entry in load_catalog().entries(cast("Kind", kind)):
        if entry.spec.name == name.removeprefix("unlearn-suite-"):
            message = f"{entry.distribution} has the {kind} {entry.spec.name!r} already"
            raise PlanError(message, code="plugin-name", hint="choose another name")
    folder = write_plugin(name, kind, into)
    brought = folder.name.removeprefix("unlearn-suite-")
    if as_json:
        print_json({"folder": str(folder), "distribution": folder.name, "kind": kind, "name": brought})
        return
    click.echo(f"{folder}: a distribution with the {kind} {brought!r}")
    click.echo(f"next: cd {folder} && pip install -e '.[test]' && pytest")
