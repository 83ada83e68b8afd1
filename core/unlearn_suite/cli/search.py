"""`unlearn-suite plugins search TEXT`: what is known, installed or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .options import debug_option, json_option, print_json

if TYPE_CHECKING:
    from ..plugins import Catalog


@click.command()
@click.argument("text")
@json_option
@debug_option
def search(text: str, as_json: bool) -> None:
    """Find objectives, datasets, metrics, problems and attacks by TEXT.

    In names, summaries and papers of what is installed, and of what the registry knows besides.
    """
    from ..plugins import load_catalog

    found = list(_found(text.casefold(), load_catalog()))
    if as_json:
        print_json(found)
        return
    for one in found:
        where = one["distribution"] if one["installed"] else f"not installed: {one['action']}"
        click.echo(f"{one['kind']:<10} {one['name']}  ({where})")
        if one["summary"]:
            click.echo(f"    {one['summary']}")
    if not found:
        click.echo("nothing that is installed or in the registry says so")


def _found(text: str, catalog: Catalog) -> Iterator[dict[str, Any]]:
    """What is installed first, then what is only known."""
    from ..plugins.entry import KINDS

    have = set()
    for kind in KINDS:
        for entry in catalog.entries(kind):
            spec = entry.spec
            have.add((entry.distribution, kind, spec.name))
            if _says(text, spec.name, spec.summary, getattr(spec, "paper", ""), entry.distribution):
                yield _record(kind, spec.name, spec.summary, entry.distribution, "")
    for distribution, known in catalog.registry.plugins.items():
        action = "not released yet" if known.status == "planned" else f"pip install {distribution}"
        for kind, names in known.provides.items():
            for name in names:
                new = (distribution, kind, name) not in have
                if new and _says(text, name, known.summary, known.paper, distribution):
                    yield _record(kind, name, known.summary, distribution, action)


def _says(text: str, *words: str) -> bool:
    return any(text in word.casefold() for word in words)


def _record(kind: str, name: str, summary: str, distribution: str, action: str) -> dict[str, Any]:
    shown = {"kind": kind, "name": name, "summary": summary, "distribution": distribution}
    return {**shown, "installed": not action, "action": action}
