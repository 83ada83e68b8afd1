"""`unlearn-suite plan check | show | schema`."""

from __future__ import annotations

from pathlib import Path

import click

from .options import debug_option, json_option, open_plan, plan_argument, plugin_option, print_json


@click.group()
def plan() -> None:
    """Check a plan, or show it in full."""


@plan.command()
@plan_argument
@plugin_option
@debug_option
def check(plan_file: Path, plugin_files: tuple[Path, ...]) -> None:
    """Tell everything that is wrong in PLAN. Runs nothing."""
    resolved, _ = open_plan(plan_file, plugin_files)
    counts = [
        _count(len(resolved.problems), "problem"),
        _count(len(resolved.models), "model"),
        _count(len(resolved.arms), "arm"),
        _count(len(resolved.seeds), "seed"),
    ]
    click.echo(f"{plan_file}: fine ({', '.join(counts)})")


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
