"""`unlearn-suite plugins check NAME`: the conformance kit as a table."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import OK, PLUGIN
from .completion import complete_name
from .options import debug_option, json_option, plugin_option, print_json

if TYPE_CHECKING:
    from ..testing.conformance import Result

MARKS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped", "expected": "expected", "unexpected": "FAILED"}


@click.command()
@click.argument("name", required=False, shell_complete=complete_name)
@plugin_option
@click.option("--only", metavar="ID", multiple=True, help="Only checks with this id, or pattern such as 'OBJ-*'.")
@json_option
@debug_option
def check(name: str | None, plugin_files: tuple[Path, ...], only: tuple[str, ...], as_json: bool) -> int:
    """Check whether NAME does what the host relies on.

    NAME is a plugin (its distribution, entry point or file), or an objective, dataset, metric, problem or attack; it
    may be left out with one --plugin FILE. Everything runs on tiny models; nothing is downloaded.
    """
    from ..testing import conformance

    if name is None:
        if len(plugin_files) != 1:
            raise click.UsageError("name the plugin, or give one --plugin FILE")
        name = plugin_files[0].name
    warnings.simplefilter("ignore")  # of the libraries, about one another
    results: list[Result] = []
    for result in conformance.run(name, plugin_files, only):
        results.append(result)
        if not as_json:
            _print(result, first=len(results) == 1 or results[-2].subject != result.subject)
    if as_json:
        print_json([result.to_json() for result in results])
    else:
        click.echo(_counts(results))
    return OK if all(result.ok for result in results) else PLUGIN


def _print(result: Result, *, first: bool) -> None:
    if first:
        click.echo(result.subject)
    click.echo(f"  {MARKS[result.outcome]:<8}  {result.id:<16}  {result.summary}")
    if result.message:
        click.echo(f"{'':12}{result.message}")


def _counts(results: Sequence[Result]) -> str:
    counted = Counter(result.outcome for result in results)
    failed = counted["failed"] + counted["unexpected"]
    told = [f"{counted['passed']} passed", f"{failed} failed"]
    told += [f"{counted[word]} {word}" for word in ("skipped", "expected") if counted[word]]
    return ", ".join(told)
