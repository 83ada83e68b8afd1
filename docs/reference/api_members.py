"""Members of the code as Markdown: signatures, types and docstrings, for make_api.py."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any, NamedTuple

from make_reference import attribute_docs, data_fields, prose, table

SHAPE = re.compile(r"\[(?:\.\.\.|[A-Z0-9]+)(?:, (?:\.\.\.|[A-Z0-9]+))*\]")
"""[B, T, D], [...]"""


class Missing(Exception):
    """Something public that nothing is told about."""


# --- text


def text(doc: str | None) -> str:
    """A docstring as Markdown: shapes as code, `<` as itself."""
    blocks = re.split(r"(^```\n.*?\n```$)", prose(doc), flags=re.M | re.S)
    return "".join(block if at % 2 else _inline(block) for at, block in enumerate(blocks))


def _inline(block: str) -> str:
    spans = re.split(r"(`[^`]+`)", block)
    return "".join(
        span if at % 2 else SHAPE.sub(lambda m: f"`{m[0]}`", span.replace("<", "&lt;")) for at, span in enumerate(spans)
    )


def item(head: str, doc: str) -> str:
    """An entry of a list: code, and what it is."""
    return f"- `{head}`\n\n{textwrap.indent(doc, '  ')}"


class _Bare(str):
    """An annotation that is shown as it is written."""

    def __repr__(self) -> str:
        return str(self)


def signature(name: str, function: Callable[..., Any]) -> str:
    """`name(...) -> ...` without `self`; what a `with` block gives is told as such."""
    found = inspect.signature(function)
    parameters = [
        p.replace(annotation=_Bare(p.annotation)) if isinstance(p.annotation, str) else p
        for p in found.parameters.values()
        if p.name not in ("self", "cls")
    ]
    shown = str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    gives = str(found.return_annotation)
    if found.return_annotation in (inspect.Signature.empty, "None", None):
        return f"{name}{shown}"
    if _is_context_manager(function):
        inner = gives.removeprefix("Iterator[").removesuffix("]")
        gives = "a context manager" if inner == "None" else f"a context manager of {inner}"
    return f"{name}{shown} -> {gives}"


def _is_context_manager(function: Any) -> bool:
    inner = getattr(function, "__wrapped__", None)
    return inner is not None and inspect.isgeneratorfunction(inner) and not inspect.isgeneratorfunction(function)


# --- classes


class Attribute(NamedTuple):
    name: str
    kind: str
    """its type, "" where the code does not write it"""
    doc: str


def attributes(kind: type[Any]) -> Iterator[Attribute]:
    """Fields, what `__init__` sets, and properties: all that is read without a call."""
    docs = dict(attribute_docs(kind))
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            yield Attribute(field.name, str(field.type), docs.get(field.name, ""))
    elif "__init__" in vars(kind):
        yield from _set_by_init(vars(kind)["__init__"])
    for name, member in vars(kind).items():
        if isinstance(member, property | cached_property):
            function: Any = member.fget if isinstance(member, property) else member.func
            yield Attribute(name, str(inspect.signature(function).return_annotation), function.__doc__ or "")


def _set_by_init(init: Any) -> Iterator[Attribute]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(init))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    given = {a.arg: ast.unparse(a.annotation) for a in (*tree.args.args, *tree.args.kwonlyargs) if a.annotation}
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Attribute):
            told = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            yield Attribute(target.attr, _kind_of(node, given), str(told))


def _kind_of(node: Any, given: Mapping[str, str]) -> str:
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.annotation)
    if isinstance(node.value, ast.Name):
        return given.get(node.value.id, "")
    if isinstance(node.value, ast.Constant):
        return type(node.value.value).__name__
    if isinstance(node.value, ast.Call):  # a class, or a constructor that is named: Kind(...), Kind.of(...)
        made = ast.unparse(node.value.func).split(".")[0]
        return made if made == "list" or made[0].isupper() else ""
    return ""


def methods(kind: type[Any]) -> Iterator[tuple[str, str, str]]:
    """(name, signature, docstring) of the class's own."""
    for name, member in vars(kind).items():
        if isinstance(member, classmethod):
            yield name, signature(f"{kind.__name__}.{name}", getattr(kind, name)), member.__func__.__doc__ or ""
        elif inspect.isfunction(member):
            yield name, signature(name, member), member.__doc__ or ""


def members(kind: type[Any], only: Sequence[str] = ()) -> str:
    """A table of attributes and a list of methods; all that are public, or those that are named."""

    def wanted(name: str) -> bool:
        return name in only if only else not name.startswith("_")

    shown = [a for a in attributes(kind) if wanted(a.name)]
    called = [m for m in methods(kind) if wanted(m[0])]
    _all_told(kind, only, {**{a.name: a.doc for a in shown}, **{m[0]: m[2] for m in called}})
    parts = []
    if shown:
        rows = [(f"`{a.name}`", f"`{a.kind}`" if a.kind else "", text(a.doc)) for a in shown]
        parts.append(table(("attribute", "type", "what it is"), rows))
    parts += [item(head, text(doc)) for _, head, doc in called if doc]
    return "\n\n".join(parts)


def _all_told(kind: type[Any], only: Sequence[str], docs: Mapping[str, str]) -> None:
    """Raises `Missing` for a member without a docstring (an inherited one counts) and for a name without a member."""
    inherited = {name for base in kind.__mro__[1:] for name in vars(base)}
    silent = [name for name, doc in docs.items() if not doc and name not in inherited]
    silent += [name for name in only if name not in docs]
    if silent:
        raise Missing(f"{kind.__module__}.{kind.__name__}: no docstring of {', '.join(silent)}")


def section(kind: type[Any], how: str, only: Sequence[str] = (), title: str = "") -> str:
    """A class: how one comes by it, what it is, its members."""
    return "\n\n".join(filter(None, [f"### {title or kind.__name__}", how, text(kind.__doc__), members(kind, only)]))


def made(kind: type[Any], how: str) -> str:
    """A dataclass that an author makes: its fields with their defaults, then its methods."""
    rest = [item(head, text(doc)) for name, head, doc in methods(kind) if not name.startswith("_")]
    read = [a for a in attributes(kind) if isinstance(vars(kind).get(a.name), property)]
    rest += [item(f"{a.name}: {a.kind}", text(a.doc)) for a in read]
    return "\n\n".join([f"### {kind.__name__}", how, text(kind.__doc__), text(data_fields(kind)), *rest])


def functions(module: ModuleType) -> str:
    """The functions of a module, in its order."""
    found = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
    return "\n\n".join(function(f, f.__name__) for f in found if not f.__name__.startswith("_"))


def function(one: Callable[..., Any], name: str) -> str:
    if not one.__doc__:
        raise Missing(f"{one.__module__}.{name}: no docstring")
    return item(signature(name, one), text(one.__doc__))
