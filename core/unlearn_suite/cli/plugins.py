"""`unlearn-suite plugins list | show NAME`."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import PlanError
from .check import check
from .completion import complete_name
from .new_plugin import new
from .options import debug_option, json_option, plugin_option, print_json
from .search import search

if TYPE_CHECKING:
    from ..plugins import Catalog, Entry, Kind, PluginReport

KINDS: tuple[Kind, ...] = ("problem", "objective", "dataset", "metric", "attack")


@click.group()
def plugins() -> None:
    """Show, find, check and write plugins."""


plugins.add_command(check)
plugins.add_command(new)
plugins.add_command(search)


@plugins.command("list")
@plugin_option
@click.option("--timing", is_flag=True, help="Show how long each took to load.")
@json_option
@debug_option
def list_plugins(plugin_files: tuple[Path, ...], timing: bool, as_json: bool) -> None:
    """List the plugins, whether they work, and what they bring.

    With UNLEARN_SUITE_PLUGINS=a,b in the environment only these are loaded.
    """
    from ..plugins import load_catalog

    catalog = load_catalog(plugin_files)
    records = [_record(report, catalog) for report in catalog.reports]
    if as_json:
        print_json(records)
        return
    for record in records:
        for line in _lines(record, timing):
            click.echo(line)
    if timing:
        click.echo(f"{sum(record['seconds'] for record in records):.3f} s in all")


def _record(report: PluginReport, catalog: Catalog) -> dict[str, Any]:
    keys = ("status", "distribution", "version", "entry_point", "target", "where", "message", "action")
    provided = {
        kind: [entry.spec.name for entry in catalog.entries(kind) if entry.qualified in report.provides]
        for kind in KINDS
    }
    return {
        **{key: getattr(report, key) for key in keys},
        "provides": {kind: names for kind, names in provided.items() if names},
        "notes": [*report.notes, *catalog.clashes(report)],
        "seconds": round(report.seconds, 4),
    }


def _lines(record: dict[str, Any], timing: bool) -> Iterator[str]:
    name = f"{record['distribution']} {record['version']}".rstrip()
    took = f"  {record['seconds']:.3f} s" if timing else ""
    yield f"{record['status']:<12} {name}  ({record['entry_point']} = {record['target']}){took}"
    for kind, names in record["provides"].items():
        yield f"    {kind + 's:':<11} {', '.join(names)}"
    if record["message"]:
        place = f"{record['where']}: " if record["where"] else ""
        yield f"    {place}{record['message']}"
    if record["action"]:
        yield f"      hint: {record['action']}"
    for note in record["notes"]:
        yield f"    note: {note}"


@plugins.command()
@click.argument("name", shell_complete=complete_name)
@plugin_option
@json_option
@debug_option
def show(name: str, plugin_files: tuple[Path, ...], as_json: bool) -> None:
    """Show what NAME is and which options it takes.

    NAME is that of an objective, dataset, metric, problem or attack.
    """
    from ..plugins import load_catalog
    from .describe import entry_json, entry_lines

    shown = [entry_json(entry) for entry in _entries(name, load_catalog(plugin_files))]
    if as_json:
        print_json(shown)
        return
    for index, one in enumerate(shown):
        if index:
            click.echo()
        for line in entry_lines(one):
            click.echo(_wrapped(line))


def _wrapped(line: str) -> str:
    """A line folded to the terminal, below its own indent; left whole for pipes and files."""
    if not sys.stdout.isatty():
        return line
    indent = line[: len(line) - len(line.lstrip())]
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line.strip(), width, initial_indent=indent, subsequent_indent=indent + "  ")


def _entries(name: str, catalog: Catalog) -> list[Entry]:
    """Everything of that name: a dataset and a problem may share theirs."""
    from ..plan.faults import suggest

    everything = [entry for kind in KINDS for entry in catalog.entries(kind)]
    found = [entry for entry in everything if name in (entry.spec.name, entry.qualified)]
    if not found:
        names = [entry.spec.name for entry in everything]
        hint = suggest(name, [*names, *(entry.qualified for entry in everything)])
        raise PlanError(
            f"nothing that is installed is called {name!r}",
            code="plugin-unknown",
            hint=hint or "see `unlearn-suite plugins list`",
        )
    return found
