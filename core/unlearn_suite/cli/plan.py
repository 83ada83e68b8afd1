"""`unlearn-suite plan new | check | show | schema`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import PlanError, PlanErrors
from .estimate import as_json as to_json
from .estimate import estimate_option, estimates, exit_code, print_estimates
from .new_plan import new
from .options import debug_option, errors_json, json_option, open_plan, plan_argument, plugin_option, print_json

if TYPE_CHECKING:
    from ..worker.estimate import CellEstimate


class PlanGroup(click.Group):
    """Where a file stands in a command's place, tells what could have been meant."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands and Path(args[0]).is_file():
            raise PlanError(
                f"No such command '{args[0]}'.",
                code="usage",
                hint=f"`unlearn-suite plan check {args[0]}` checks the file, `unlearn-suite run {args[0]}` runs it",
            )
        return super().resolve_command(ctx, args)


@click.group(cls=PlanGroup)
def plan() -> None:
    """Write, check or show a plan."""


plan.add_command(new)


@plan.command()
@plan_argument
@plugin_option
@estimate_option
@json_option
@debug_option
def check(plan_file: Path, plugin_files: tuple[Path, ...], estimate: bool, as_json: bool) -> int:
    """Tell everything that is wrong in PLAN. Runs nothing.

    With --estimate also what each cell takes and whether it fits here; the exit code is 4 when one does not.
    """
    try:
        resolved, catalog = open_plan(plan_file, plugin_files)
    except PlanErrors as error:
        if not as_json:
            raise
        print_json({"fine": False, "errors": errors_json(error)})
        return error.exit_code
    parts = ("problems", "models", "arms", "seeds", "attacks")
    counts = {part: len(getattr(resolved, part)) for part in parts if part != "attacks" or resolved.attacks}
    if not as_json:
        told = ", ".join(_count(number, part.removesuffix("s")) for part, number in counts.items())
        click.echo(f"{plan_file}: fine ({told})")
    found: list[CellEstimate] = []
    if estimate:
        from .. import models
        from ..study import build_cells

        found = estimates(build_cells(resolved, identity=models.identity), catalog, Path())
        if not as_json:
            print_estimates(found)
    if as_json:
        print_json({"fine": True, "errors": [], **counts, **({"cells": to_json(found)} if estimate else {})})
    return exit_code(found)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


@plan.command()
@plan_argument
@plugin_option
@json_option
@debug_option
def show(plan_file: Path, plugin_files: tuple[Path, ...], as_json: bool) -> None:
    """Print PLAN in full.

    Every name is resolved and every default written out; the text is a plan itself.
    """
    from ..plan import dump_resolved, resolved

    shown, _ = open_plan(plan_file, plugin_files)
    if as_json:
        print_json(resolved(shown))
    else:
        click.echo(dump_resolved(shown), nl=False)


@plan.command()
@plugin_option
@debug_option
def schema(plugin_files: tuple[Path, ...]) -> None:
    """Print the JSON Schema of plans.

    It has the options of everything that is installed; editors complete and check plans with it.
    """
    from ..plan import plan_schema
    from ..plugins import load_catalog

    print_json(plan_schema(load_catalog(plugin_files)))
