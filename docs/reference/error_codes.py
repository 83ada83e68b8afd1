"""Every error code of the source, found by reading its syntax: a literal `code`, with the sentence beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
SOURCES = (*sorted((ROOT / "core").rglob("*.py")), *sorted((ROOT / "plugins").glob("*/src/**/*.py")))
CODE = re.compile(r"^[a-z]+(-[a-z]+)*$")


class Found(NamedTuple):
    code: str
    error: str
    """class of the exception"""
    says: str
    """the sentence, with … for what is filled in; "" when it is put together elsewhere"""


def page(table: Callable[[tuple[str, ...], list[tuple[str, ...]]], str], prose: Callable[[str | None], str]) -> str:
    """errors.md."""
    from unlearn_suite import errors

    kinds = {n: k for n, k in vars(errors).items() if isinstance(k, type) and issubclass(k, errors.SuiteError)}
    classes = [(f"`{name}`", str(kind.exit_code), (kind.__doc__ or "").split("\n")[0]) for name, kind in kinds.items()]
    rows: dict[str, list[Found]] = {}
    for one in found():
        rows.setdefault(one.code, []).append(one)
    codes = [(f"`{code}`", *_row(rows[code])) for code in sorted(rows)]
    head = f"""# Errors

{prose(errors.SuiteError.__doc__)}

Only this is printed; `--debug` adds the traceback."""
    told = """Codes are stable, sentences may change. `…` stands for a name or a number. Where several sentences share a
code, one is shown."""
    return "\n\n".join([
        head,
        "## Kinds",
        table(("class", "exit code", "meaning"), classes),
        "## Codes",
        told,
        table(("code", "class", "says, for example"), codes),
    ])  # fmt: skip


def _row(same: list[Found]) -> tuple[str, str]:
    kinds = ", ".join(f"`{name}`" for name in sorted({one.error for one in same}))
    return kinds, min((one.says for one in same if one.says), key=lambda says: says.count("…"), default="")


def found() -> Iterator[Found]:
    """All literal codes; those of helper functions with a parameter `code` too."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    helpers = {name: helper for tree in trees.values() for name, helper in _helpers(tree)}
    for tree in trees.values():
        constants = {name: text for node in tree.body for name, text in _assigned(node).items()}
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.Module):
                texts = dict(constants)
                for node in sorted(_own(function), key=_line):
                    texts |= _assigned(node)
                    yield from _of_node(node, texts, helpers)


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a function without those of functions inside it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from _own(child)


def _helpers(tree: ast.AST) -> Iterator[tuple[str, tuple[int, str, str]]]:
    """Name -> (position of `code` without self, its default, the exception) of functions that make errors."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        names = [a.arg for a in node.args.args if a.arg != "self"]
        errors = [
            name for call in ast.walk(node) if isinstance(call, ast.Call) and (name := _name(call)).endswith("Error")
        ]
        if "code" in names and errors:
            at = names.index("code")
            defaults = dict(zip(reversed(names), reversed(node.args.defaults), strict=False))
            yield node.name, (at, _literal(defaults.get("code"), {}), errors[0])


def _of_node(node: ast.AST, texts: dict[str, str], helpers: dict[str, tuple[int, str, str]]) -> Iterator[Found]:
    if isinstance(node, ast.Call):
        name, keywords = _name(node), {k.arg: k.value for k in node.keywords}
        code = _literal(keywords.get("code"), texts)
        if name in helpers:
            at, default, error = helpers[name]
            code = code or (_literal(node.args[at], {}) if len(node.args) > at else default)
            first = node.args[1] if len(node.args) > 1 else None
            says = _literal(first, texts)
        else:
            error = name
            says = _literal(node.args[0], texts) if node.args else ""
        if CODE.match(code) and (error.endswith("Error") or name == "__init__"):
            yield Found(code, "PlanErrors" if name == "__init__" else error, says)
    elif isinstance(node, ast.Tuple) and len(node.elts) == 3:
        words = [_literal(one, texts) for one in node.elts]
        codes = [word for word in words if CODE.match(word)]
        if len(codes) == 1 and all(" " in word for word in words if word not in codes):
            yield Found(codes[0], "PrerequisiteError", next(word for word in words if word not in codes))


def _line(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _assigned(node: ast.AST) -> dict[str, str]:
    """The name that a statement gives a literal text to, if it does."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (text := _literal(node.value, {})):
        return {node.targets[0].id: text}
    return {}


def _name(call: ast.Call) -> str:
    target = call.func
    return target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""


def _literal(node: Any, texts: dict[str, str]) -> str:
    """A literal text, with … for its variable parts."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _literal(node.left, texts) + _literal(node.right, texts)
    return texts.get(node.id, "") if isinstance(node, ast.Name) else ""
