"""`unlearn-suite models list | fetch NAME`."""

from __future__ import annotations

import click

from .options import debug_option, json_option, print_json


@click.group()
def models() -> None:
    """Show or fetch the models a plan may name."""


@models.command("list")
@json_option
@debug_option
def list_models(as_json: bool) -> None:
    """List the model assets of the registry."""
    from ..plugins import read_registry

    assets = read_registry().models
    if as_json:
        print_json([{"name": name, **asset.model_dump(mode="json")} for name, asset in assets.items()])
        return
    for name, asset in assets.items():
        size = getattr(asset, "download_bytes", 0)
        facts = [asset.kind, *([f"{size / 1e6:.0f} MB to download"] if size else []), asset.licence]
        click.echo(f"{name}  ({', '.join(fact for fact in facts if fact)})")
        if asset.summary:
            click.echo(f"    {asset.summary}")


@models.command()
@click.argument("name")
@json_option
@debug_option
def fetch(name: str, as_json: bool) -> None:
    """Download and prepare a model asset.

    Prints its folder. `run` does the same when it needs NAME.
    """
    from ..models import local_folder

    folder = local_folder({"asset": name}, say=lambda text: click.echo(text, err=True))
    if as_json:
        print_json({"name": name, "folder": str(folder)})
    else:
        click.echo(str(folder))
