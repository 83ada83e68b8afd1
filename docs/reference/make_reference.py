"""Writes the reference pages that the code itself can tell, beside this file.

    python docs/reference/make_reference.py            # write them
    python docs/reference/make_reference.py --check    # name those that differ, exit code 1

No torch is imported, and no plugin is asked: options of plugins are shown by `unlearn-suite plugins show NAME`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import error_codes  # noqa: E402
import run_files  # noqa: E402

NOTE = "<!-- Written by `python docs/reference/make_reference.py`; edit the code instead. -->"
SCALARS = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Any: "anything"}


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; cells may hold line breaks and bars."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def prose(doc: str | None) -> str:
    """A docstring as Markdown: indented parts become literal blocks."""
    parts = inspect.cleandoc(doc or "").replace("\b\n", "").split("\n\n")
    return "\n\n".join(f"```\n{textwrap.dedent(part)}\n```" if part.startswith("    ") else part for part in parts)


# --- command line


def cli_page() -> str:
    from unlearn_suite import errors
    from unlearn_suite.cli import cli

    codes = [
        (str(errors.OK), "done"),
        (str(errors.SOME_CELLS_FAILED), "some cells failed"),
        (str(errors.USAGE), "the command line or the plan is wrong"),
        (str(errors.PLUGIN), "a plugin cannot be loaded, is missing, or raised"),
        (str(errors.PREREQUISITE), "the machine lacks something: device, memory, disk, network, an asset, a package"),
        (str(errors.GATE), "the run is complete and an `expect` line of the plan does not hold"),
        (str(errors.BUG), "a bug of the suite"),
        (str(errors.INTERRUPTED), "interrupted; the same command continues"),
        (str(errors.TERMINATED), "terminated; the same command continues"),
    ]
    return "\n\n".join(
        ["# The command line", *commands("unlearn-suite", cli), "## Exit codes", table(("code", "meaning"), codes)]
    )


def commands(path: str, command: click.Command) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(click.Context(command, info_name=path)))
    parts = [f"## {path}", f"```\n{path} {usage}\n```", prose(command.help)]
    rows = [option for option in map(parameter, command.params) if option]
    yield "\n\n".join([*parts, *([table(("option", "value", "meaning"), rows)] if rows else [])])
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from commands(f"{path} {name}", command.commands[name])


def parameter(param: click.Parameter) -> tuple[str, str, str] | None:
    if not isinstance(param, click.Option):
        return None
    kind = param.type
    value = (
        " | ".join(f"`{c}`" for c in kind.choices)
        if isinstance(kind, click.Choice)
        else f"`{param.make_metavar(click.Context(click.Command('x')))}`"
    )
    facts = [param.help or ""] + (["Required."] if param.required else [])
    return ", ".join(f"`{name}`" for name in param.opts), "" if param.is_flag else value, " ".join(filter(None, facts))


# --- pydantic models


def plan_page() -> str:
    from unlearn_suite import specs
    from unlearn_suite.plan import grammar as g
    from unlearn_suite.plan.parameters import ParameterWords

    parts: list[tuple[str, type[BaseModel]]] = [
        ("The plan", g.PlanWords),
        ("A model", g.ModelWords),
        ("A problem of a plugin, with changes", g.ProblemUseWords),
        ("A problem written in the plan", g.ProblemWords),
        ("The file of a problem that a plugin ships", g.FragmentWords),
        ("A parameter of such a file", ParameterWords),
        ("A dataset of a data role", g.UseWords),
        ("A metric entry", g.MetricWords),
        ("A line of a problem's `expect`", g.LimitWords),
        ("An attack", g.AttackWords),
        ("An arm", g.ArmWords),
        ("A stage of an arm", g.StageWords),
        ("`lora` of a stage", specs.Lora),
        ("`diagnostics` of a stage", specs.Diagnostics),
        ("`stop` of a stage", specs.Stop),
        ("`compute`", g.Compute),
        ("A line of the plan's `expect`", g.GateWords),
    ]
    head = [
        "# The plan, key by key",
        """Options (`with`) belong to the plugin: `unlearn-suite plugins show NAME` and `unlearn-suite plan schema` tell
them. An objective may set other defaults for the keys of its stage: `unlearn-suite plan show PLAN` shows them.""",
    ]
    return "\n\n".join([*head, *(f"## {title}\n\n{prose(model.__doc__)}\n\n{fields(model)}" for title, model in parts)])


def fields(model: type[BaseModel]) -> str:
    """A table of a model's keys, its own before those it inherits."""
    rows = []
    own = vars(model).get("__annotations__", {})
    for name, field in sorted(model.model_fields.items(), key=lambda item: item[0] not in own):
        default = "required" if field.is_required() else "" if field.default is None else plain(field)
        rows.append((f"`{field.alias or name}`", bounded(field), default, field.description or ""))
    return table(("key", "value", "default", "meaning"), rows)


def plain(field: FieldInfo) -> str:
    """A default as it would be written in a plan."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, tuple | list):
        return f"`[{', '.join(map(str, value))}]`"
    return (
        f"`{str(value).lower() if isinstance(value, bool) else value!r}`".replace("'", "") if value != "" else "empty"
    )


def bounded(field: FieldInfo) -> str:
    return kind_of(field.annotation, field.metadata)


def kind_of(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type in plain words, with what pydantic holds its values to."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind_of(
            inner[0], [m for one in inner[1:] for m in (one.metadata if isinstance(one, FieldInfo) else [one])]
        )
    if origin in (Union, types.UnionType):
        return " | ".join(kind_of(one, metadata) for one in inner if one is not type(None))
    fewest = [
        f" with at least {m.min_length} entr{'y' if m.min_length == 1 else 'ies'}"
        for m in metadata
        if isinstance(m, MinLen)
    ]
    if origin in (list, tuple):
        return f"list{''.join(fewest)} of: {kind_of(inner[0])}"
    if origin is dict:
        return f"mapping{''.join(fewest)}" + ("" if inner[1] is Any else f" to: {kind_of(inner[1])}")
    if origin is Literal:
        return " | ".join(f"`{value}`" for value in inner)
    signs = {Ge: ("≥", "ge"), Gt: (">", "gt")}
    limits = [
        f"{sign} {getattr(m, key)}" for m in metadata for kind, (sign, key) in signs.items() if isinstance(m, kind)
    ]
    return ", ".join([SCALARS.get(annotation, "mapping"), *limits])


# --- hooks, specs, records


def hooks_page() -> str:
    from unlearn_suite import hookspecs

    functions = [f for f in vars(hookspecs).values() if inspect.isfunction(f) and hasattr(f, "unlearn_suite_spec")]
    sections = [
        f"## {f.__name__}\n\n```python\ndef {f.__name__}{signature(f)}\n```\n\n{prose(f.__doc__)}" for f in functions
    ]
    head = f"""# Hooks

A plugin is a module with functions that are marked `@hookimpl` and named as below. It implements those it wants and
names the arguments it wants. The entry point group is
`{hookspecs.ENTRY_POINT_GROUP}`; `HOOK_API` is {hookspecs.HOOK_API}.

`register_*` hooks get `register`, a function that takes one [spec](specs.md). `on_*` hooks watch a run; they must not
change what they are given."""
    return "\n\n".join([head, *sections])


def signature(function: Callable[..., Any]) -> str:
    return str(inspect.signature(function)).replace("'", "")


def specs_page() -> str:
    from unlearn_suite import specs

    kinds = [
        specs.ObjectiveSpec,
        specs.DatasetSpec,
        specs.MetricSpec,
        specs.ValueSpec,
        specs.ProblemSpec,
        specs.AttackSpec,
        specs.AttackPoint,
        specs.Example,
    ]
    head = """# Specs

What a plugin registers, and what a dataset yields. Specs are light: code is named as `"package.module:attribute"` and
loaded when a cell needs it, so that importing a plugin imports no torch. In a plugin of one file, write
`f"{__name__}:attribute"`."""
    config = f"## Config\n\n{prose(specs.Config.__doc__)}"
    return "\n\n".join(
        [head, *(f"## {kind.__name__}\n\n{prose(kind.__doc__)}\n\n{data_fields(kind)}" for kind in kinds), config]
    )


def data_fields(kind: type[Any]) -> str:
    docs = dict(attribute_docs(kind))
    rows = []
    for field in dataclasses.fields(kind):
        missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = (
            "required"
            if missing
            else "empty"
            if field.default in ("", (), dataclasses.MISSING)
            else f"`{shown(field.default)}`"
        )
        rows.append((f"`{field.name}`", f"`{field.type}`", default, docs.get(field.name, "")))
    filled = any(row[3] for row in rows)
    return table(
        ("field", "type", "default", "meaning")[: 4 if filled else 3], [row[: 4 if filled else 3] for row in rows]
    )


def shown(value: Any) -> str:
    return value.__name__ if inspect.isclass(value) else repr(value)


def attribute_docs(kind: type[Any]) -> Iterator[tuple[str, str]]:
    """(field, docstring below it) of a class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, after in zip(body.body, body.body[1:], strict=False):
        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and documented:
            yield field.target.id, str(after.value.value)  # type: ignore[attr-defined]


MEANINGS = {
    "run": "name of the run directory",
    "cell": "the cell's id, the end of its folder's name",
    "problem": "label of the problem",
    "model": "label of the model",
    "arm": "name of the arm; cells without stages are the untouched model",
    "seed": "the cell's seed",
    "metric": "name of the metric entry",
    "use": "the metric, as distribution/name",
    "value": "which of the metric's values",
    "example": "id of the example",
    "group": "what results are grouped by",
    "unit": "what resampling keeps together",
    "weight": "weight of the example in the mean",
    "score": "the value; may be NaN",
}


def records_page() -> str:
    from unlearn_suite.evaluate.metric import Row
    from unlearn_suite.store.records import _schema, write_records

    words = {"dictionary": "text", "int64": "whole number", "double": "number"}
    columns = [(f"`{c.name}`", words[str(c.type).split("<")[0]], MEANINGS[c.name]) for c in _schema()]
    head = f"""# Records

`results/records.parquet`, one row per cell, metric entry, example and value; read it with `pandas.read_parquet`.

{prose(write_records.__doc__)}"""
    row = f"## What a metric yields\n\n{prose(Row.__doc__)}\n\n{data_fields(Row)}"
    return "\n\n".join([head, table(("column", "type", "meaning"), columns), row])


PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "plan.md": plan_page,
    "hooks.md": hooks_page,
    "specs.md": specs_page,
    "errors.md": lambda: error_codes.page(table, prose),
    "run-directory.md": lambda: run_files.page(table),
    "records.md": records_page,
}
"""file name -> what it must hold"""


def text_of(name: str) -> str:
    heading, rest = PAGES[name]().split("\n", 1)
    return f"{heading}\n\n{NOTE}\n{rest.rstrip()}\n"


def main(arguments: list[str]) -> int:
    different = [
        name for name in PAGES if not (HERE / name).exists() or (HERE / name).read_text("utf-8") != text_of(name)
    ]
    for name in different:
        print(HERE / name)
        if "--check" not in arguments:
            (HERE / name).write_text(text_of(name), encoding="utf-8")
    return 1 if different and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
