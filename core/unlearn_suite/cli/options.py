"""Options and small helpers that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import PlanErrors, SuiteError

if TYPE_CHECKING:
    from ..plan import Plan
    from ..plugins import Catalog

F = TypeVar("F", bound=Callable[..., Any])


def _note_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta["debug"] = context.meta.get("debug", False) or value


def debugging() -> bool:
    """Whether the command that runs was given --debug."""
    return bool(click.get_current_context().meta.get("debug", False))


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_note_debug, help="Show the traceback of a failure."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
plugin_option = click.option(
    "--plugin",
    "plugin_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Load plugins from a Python file too; may be given several times.",
)
plan_argument = click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))


def open_plan(path: Path, plugin_files: Sequence[Path]) -> tuple[Plan, Catalog]:
    """The resolved plan, and the catalog with the plugin files of the command line and of the plan."""
    from ..models import asset_names
    from ..plan import load_plan
    from ..plugins import load_catalog

    catalogs: list[Catalog] = []

    def load(files: Sequence[Path]) -> Catalog:
        catalogs.append(load_catalog([*plugin_files, *files]))
        _warn_of_plugins(catalogs[0])
        return catalogs[0]

    plan = load_plan(path, load, assets=asset_names())
    for note in plan.notes:
        click.echo(f"note: {note}", err=True)
    return plan, catalogs[0]


def _warn_of_plugins(catalog: Catalog) -> None:
    """A plugin that could not be loaded is always told; it is fatal only when the plan uses it."""
    for report in catalog.reports:
        name = f"{report.distribution} ({report.entry_point})"
        if not report.ok and report.status != "off":
            place = f" ({report.where})" if report.where else ""
            click.echo(f"warning: plugin {name} is {report.status}: {report.message}{place}", err=True)
            click.echo(f"  hint: {report.action}", err=True)
        for note in report.notes:
            click.echo(f"warning: plugin {name} {note}", err=True)


def errors_json(error: SuiteError) -> list[dict[str, str]]:
    """An error, or each of a plan's, for programs."""
    keys = ("where", "message", "hint", "code")
    every = error.errors if isinstance(error, PlanErrors) else [error]
    return [{key: getattr(one, key) for key in keys} for one in every]


def print_json(value: Any) -> None:
    """Pretty JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
