"""What others rely on, as text: public names, hooks, command line, plan format, records. One file each.

`python -m unlearn_suite.testing.golden` compares the files in tests/golden with the code and shows the differences;
`--accept` writes them anew. A change of them is a change of a promise: docs/reference/stability.md says which.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

ACCEPT = "python -m unlearn_suite.testing.golden --accept"


def public_names() -> str:
    """Every public name with its signature, and the public members of classes."""
    import unlearn_suite
    from unlearn_suite.testing import conformance

    lines = [line for name in unlearn_suite.__all__ for line in _name(name, getattr(unlearn_suite, name))]
    for name in sorted(conformance.__all__):
        lines += _name(f"testing.conformance.{name}", getattr(conformance, name))
    return _text(lines)


def _name(name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__)
        yield f"class {name}({bases})"
        yield from sorted(set(_members(name, value)))
    elif inspect.isroutine(value):
        yield f"{name}{inspect.signature(value)}"
    elif inspect.ismodule(value):
        functions = [f for f in vars(value).items() if inspect.isfunction(f[1]) and f[1].__module__ == value.__name__]
        yield f"module {name}"
        yield from sorted(f"  {name}.{key}{inspect.signature(f)}" for key, f in functions if not key.startswith("_"))
    else:
        yield f"{name}: {type(value).__name__}"


def _members(name: str, value: type[Any]) -> Iterator[str]:
    if issubclass(value, BaseModel):
        yield from (f"  {name}.{key}: {field.annotation}" for key, field in value.model_fields.items())
        return
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            optional = "" if field.default is field.default_factory is dataclasses.MISSING else " = ..."
            yield f"  {name}.{field.name}: {field.type}{optional}"
    for base in value.__mro__:
        if not base.__module__.startswith("unlearn_suite"):
            continue
        for key, member in vars(base).items():
            if key.startswith("_") and key != "__init__":
                continue
            if isinstance(member, property | cached_property):
                yield f"  {name}.{key}  (property)"
            elif (inspect.isroutine(member) or isinstance(member, classmethod)) and not _is_generated(base, key):
                yield f"  {name}.{key}{inspect.signature(getattr(value, key))}"


def _is_generated(base: type[Any], key: str) -> bool:
    return key == "__init__" and dataclasses.is_dataclass(base)


def hooks() -> str:
    """The version of the hooks, and every hook with its arguments."""
    from .. import hookspecs
    from ..plugins.hooks import HOOKS

    lines = [f"HOOK_API {hookspecs.HOOK_API}", f"entry point group {hookspecs.ENTRY_POINT_GROUP}"]
    for name in HOOKS:
        lines.append(f"{name}{inspect.signature(getattr(hookspecs, name))}")
    return _text(lines)


def command_line() -> str:
    """Every command with its arguments and options."""
    from ..cli import cli

    return _text(_commands("unlearn-suite", cli))


def _commands(path: str, command: click.Command) -> Iterator[str]:
    yield path
    for parameter in command.params:
        yield f"    {_parameter(parameter)}"
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _commands(f"{path} {name}", command.commands[name])


def _parameter(parameter: click.Parameter) -> str:
    names = "/".join(parameter.opts + parameter.secondary_opts) if parameter.param_type_name == "option" else "ARGUMENT"
    kind = parameter.type
    shown = "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else kind.name
    facts = [shown if not getattr(parameter, "is_flag", False) else "flag"]
    facts += ["required"] if parameter.required else []
    facts += ["several"] if parameter.multiple or parameter.nargs != 1 else []
    return f"{names} ({', '.join(facts)})" if names != "ARGUMENT" else f"{parameter.human_readable_name} ({facts[0]})"


def plan_format() -> str:
    """The JSON Schema of plans, with one objective, dataset, metric and problem that have no options."""
    from ..plan import plan_schema

    return json.dumps(plan_schema(_Bare()), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


@dataclasses.dataclass(frozen=True)
class _BareEntry:
    spec: Any
    qualified: str
    distribution: str = "example"
    version: str = "1.0"


class _Bare:
    """A catalog with one thing of each kind, so that the golden file hangs on no plugin."""

    def entries(self, kind: str) -> Sequence[_BareEntry]:
        from ..specs import AttackConfig, AttackSpec, DatasetSpec, MetricSpec, ObjectiveSpec, ProblemSpec, ValueSpec

        specs = {
            "objective": ObjectiveSpec("objective", "an objective", "example:X"),
            "dataset": DatasetSpec("dataset", "a dataset", "example:X"),
            "metric": MetricSpec("metric", "a metric", "example:X", {"value": ValueSpec("a value")}),
            "problem": ProblemSpec("problem", "a problem", "example:x.yaml"),
            "attack": AttackSpec("attack", "an attack", "example:X", AttackConfig),
        }
        return [_BareEntry(specs[kind], f"example/{kind}")]

    def find(self, kind: str, name: str) -> _BareEntry:
        return self.entries(kind)[0]


def records() -> str:
    """The columns of results/records.parquet with their types, and the fields of a metric's row."""
    from ..evaluate.metric import Row
    from ..store.records import _schema

    lines = [f"{field.name}: {field.type}" for field in _schema()]
    return _text([*lines, "", *(f"Row.{field.name}: {field.type}" for field in dataclasses.fields(Row))])


def _text(lines: Sequence[str] | Iterator[str]) -> str:
    return "\n".join(lines) + "\n"


GOLDEN: Mapping[str, Callable[[], str]] = {
    "public_names.txt": public_names,
    "hooks.txt": hooks,
    "command_line.txt": command_line,
    "plan_format.json": plan_format,
    "records.txt": records,
}
"""file name -> what it must hold"""


def folder() -> Path:
    """tests/golden of the source tree that this package is installed from."""
    return Path(__file__).resolve().parents[3] / "tests" / "golden"


def difference(name: str) -> str:
    """Unified diff from a golden file to the code, "" when they agree."""
    path = folder() / name
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = GOLDEN[name]()
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), str(path), "the code", lineterm="", n=1)
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Compare, or with `--accept` write. 1 when something differs and is not accepted."""
    if not folder().is_dir():
        print(f"{folder()} does not exist: run this from an editable installation of the source tree")
        return 2
    different = 0
    for name in GOLDEN:
        found = difference(name)
        if found and "--accept" in arguments:
            (folder() / name).write_text(GOLDEN[name](), encoding="utf-8")
            print(f"written: {folder() / name}")
        elif found:
            different += 1
            print(found)
    if different:
        print(f"\n{different} of {len(GOLDEN)} files differ; to accept: {ACCEPT}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
