"""`unlearn-suite plan new FILE`: a commented plan, from flags or from answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import PlanError
from .options import debug_option, json_option, open_plan, plugin_option, print_json

if TYPE_CHECKING:
    from ..plugins import Catalog, Entry, Kind

COLUMN = 34
"""where comments behind a line begin"""
STAGE_KEYS = ("steps", "lr", "batch", "length")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--model", metavar="REF", help="Asset, folder, or owner/name@COMMIT of the hub.")
@click.option("--problem", "problems", metavar="NAME", multiple=True, help="What is to be forgotten; several times.")
@click.option("--objective", "objectives", metavar="NAME", multiple=True, help="What is compared; several times.")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Number of seeds (0 to N-1).",
)
@click.option("--force", is_flag=True, help="Replace FILE.")
@plugin_option
@json_option
@debug_option
def new(
    file: Path,
    model: str | None,
    problems: tuple[str, ...],
    objectives: tuple[str, ...],
    seeds: int,
    force: bool,
    plugin_files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write a commented plan to FILE.

    What no option tells is asked, on a terminal; elsewhere the default model and each problem's own arm are taken.
    """
    from ..models import asset_names
    from ..plugins import load_catalog

    if file.exists() and not force:
        raise PlanError("the file is there already", code="plan-exists", where=str(file), hint="add --force")
    catalog = load_catalog(plugin_files)
    assets = list(asset_names())
    if sys.stdin.isatty() and not as_json:
        model = model or click.prompt("model", default=assets[0] if assets else None)
        problems = problems or _ask(catalog, "problem", "problems", required=True)
        objectives = objectives or _ask(catalog, "objective", "objectives (empty: each problem's own)", required=False)
    if not problems:
        known = ", ".join(entry.spec.name for entry in catalog.entries("problem"))
        raise PlanError("a plan needs a problem", code="plan-new", hint=f"add --problem NAME; there are {known}")
    forgotten, compared = _entries(catalog, "problem", problems), _entries(catalog, "objective", objectives)
    attacks = list(_attacks(catalog, forgotten))
    lines = _lines(file, _model(model or assets[0], assets, file), forgotten, compared, attacks, seeds, plugin_files)
    text = "\n".join(lines) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    open_plan(file, plugin_files)
    if as_json:
        print_json({"plan": str(file)})
    else:
        click.echo(f"{file}: fine; next: unlearn-suite run {file}")


def _ask(catalog: Catalog, kind: Kind, title: str, *, required: bool) -> tuple[str, ...]:
    """Names that are typed, separated by commas; asked again while one is unknown."""
    for entry in catalog.entries(kind):
        click.echo(f"    {entry.spec.name}: {entry.spec.summary}")
    known = {name for entry in catalog.entries(kind) for name in (entry.spec.name, entry.qualified)}
    while True:
        typed = click.prompt(title, default="", show_default=False)
        names = tuple(name.strip() for name in typed.split(",") if name.strip())
        unknown = [name for name in names if name not in known]
        if unknown:
            click.echo(f"there is no {kind} {unknown[0]!r}")
        elif names or not required:
            return names


def _entries(catalog: Catalog, kind: Kind, names: Sequence[str]) -> dict[str, Entry]:
    """Entries by the names they were given. Raises `PluginError` for one that nothing has."""
    return {name: catalog.find(kind, name) for name in names}


def _model(told: str, assets: Sequence[str], file: Path) -> dict[str, str]:
    """A reference as a plan writes it; paths from the plan's folder."""
    from ..models.refs import parse_ref

    if told in assets:
        return {"asset": told}
    ref = {key: str(value) for key, value in parse_ref(told).items()}
    if "path" in ref:
        ref["path"] = os.path.relpath(ref["path"], file.resolve().parent)
    return ref


def _lines(
    file: Path,
    model: dict[str, str],
    problems: Mapping[str, Entry],
    objectives: Mapping[str, Entry],
    attacks: Sequence[str],
    seeds: int,
    plugin_files: Sequence[Path],
) -> Iterator[str]:
    yield f"# unlearn-suite plan check {file.name}  tells everything that is wrong in it;"
    yield f"# unlearn-suite run {file.name}  does what is not done yet;"
    yield "# unlearn-suite plugins show NAME  explains every option."
    yield "plan: 1"
    yield _line(f"seeds: [{', '.join(map(str, range(seeds)))}]", "each cell runs once per seed")
    if plugin_files:
        beside = [os.path.relpath(path, file.parent) for path in plugin_files]
        yield _line(f"plugins: [{', '.join(beside)}]", "files with plugins of your own")
    yield ""
    yield "models:"
    ref = ", ".join(f"{key}: {value}" for key, value in model.items())
    yield _line(f"  base-model: {{{ref}}}", "or {hf: owner/name, revision: COMMIT}, or {path: folder}")
    yield ""
    yield _line("problems:", "what is forgotten and kept: data, metrics and which way they should go")
    for name, entry in problems.items():
        yield from _problem(name, entry)
    yield ""
    yield from _arms(objectives)
    yield ""
    if attacks:
        yield _line(
            "attacks:", "what each arm must stand once it is scored; they cost time: take out what you do not need"
        )
        yield from attacks
        yield ""
    yield _line("compute: {workers: 1}", "cells that run at the same time; never part of a result")


def _problem(name: str, entry: Entry) -> Iterator[str]:
    """A problem, and below it what it must be told; the rest stands in comments."""
    from ..specs import ProblemSpec
    from .describe import parameters, plain

    assert isinstance(entry.spec, ProblemSpec)
    told = parameters(entry.spec)
    needed = any(parameter.get("required") for parameter in told)
    yield _line(f"  - use: {name}" if told else f"  - {name}", entry.spec.summary)
    if told:
        yield "    with:" if needed else "    # with:"
    for parameter in told:
        text = f"{parameter['name']}: {plain(parameter.get('default', '...'))}"
        yield _line(f"      {text}" if parameter.get("required") else f"    #   {text}", parameter["doc"])


def _arms(objectives: Mapping[str, Entry]) -> Iterator[str]:
    if not objectives:
        yield "# Without `arms` the untouched model is compared with the arm that each problem brings."
        return
    yield _line("arms:", "what is compared, on every problem")
    yield _line("  base: {stages: []}", "the untouched model")
    for name, entry in objectives.items():
        yield f"  {entry.spec.name}:"
        yield "    stages:"
        yield _line(f"      - use: {name}", entry.spec.summary)
        yield from _stage(entry)


def _stage(entry: Entry) -> Iterator[str]:
    """The keys of a stage with their defaults; options stand in comments, to be taken in one by one."""
    from ..specs import ObjectiveSpec, Train
    from .describe import options, plain

    spec = entry.spec
    assert isinstance(spec, ObjectiveSpec)
    train = Train.model_validate(dict(spec.train))
    for key in STAGE_KEYS:
        yield _line(f"        {key}: {getattr(train, key)}", Train.model_fields[key].description or "")
    told: list[dict[str, Any]] = [option for option in options(spec.config) if "." not in option["name"]]
    if told:
        yield "        # with:"
    for option in told:
        value = "..." if option.get("required") else plain(option["default"])
        yield _line(f"        #   {option['name']}: {value}", option["doc"])


def _attacks(catalog: Catalog, problems: Mapping[str, Entry]) -> Iterator[str]:
    """A line for each installed attack that is ready as it is, for the problems that have the data it reads."""
    from ..specs import AttackSpec

    roles = {name: _roles(entry) for name, entry in problems.items()}
    for entry in catalog.entries("attack"):
        spec = entry.spec
        assert isinstance(spec, AttackSpec)
        if any(field.is_required() for field in spec.config.model_fields.values()):
            continue
        needed = set(spec.roles_for(spec.config()))
        fit = [problems[name].spec.name for name, has in roles.items() if needed <= has]
        if len(fit) == len(problems):
            yield _line(f"  - {spec.name}", spec.summary)
        elif fit:
            yield _line(f"  - {{use: {spec.name}, only: [{', '.join(fit)}]}}", spec.summary)


def _roles(problem: Entry) -> set[str]:
    """The data roles of a problem that a plugin ships."""
    from ..specs import ProblemSpec
    from .describe import contents

    assert isinstance(problem.spec, ProblemSpec)
    return set(contents(problem.spec).get("data", ()))  # a broken file is told when the plan is checked


def _line(text: str, comment: str) -> str:
    """A line with its comment behind it."""
    return f"{text:<{COLUMN}}  # {comment}" if comment else text
