"""`unlearn-suite plan new | check | show | schema`."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import OK, PlanErrors
from .new_plan import new
from .options import debug_option, json_option, open_plan, plan_argument, plugin_option, print_json


@click.group()
def plan() -> None:
    """Write, check or show a plan."""


plan.add_command(new)


@plan.command()
@plan_argument
@plugin_option
@json_option
@debug_option
def check(plan_file: Path, plugin_files: tuple[Path, ...], as_json: bool) -> int:
    """Tell everything that is wrong in PLAN. Runs nothing."""
    try:
        resolved, _ = open_plan(plan_file, plugin_files)
    except PlanErrors as error:
        if not as_json:
            raise
        keys = ("where", "message", "hint", "code")
        print_json({"fine": False, "errors": [{key: getattr(one, key) for key in keys} for one in error.errors]})
        return error.exit_code
    counts = [
        _count(len(resolved.problems), "problem"),
        _count(len(resolved.models), "model"),
        _count(len(resolved.arms), "arm"),
        _count(len(resolved.seeds), "seed"),
    ]
    if as_json:
        parts = ("problems", "models", "arms", "seeds")
        print_json({"fine": True, "errors": [], **{part: len(getattr(resolved, part)) for part in parts}})
    else:
        click.echo(f"{plan_file}: fine ({', '.join(counts)})")
    return OK


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
