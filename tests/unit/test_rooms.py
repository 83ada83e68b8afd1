"""The rooms of the suite: arrows go one way, light rooms stay light, plugins use public names only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unlearn_suite

CORE = Path(unlearn_suite.__file__).parent
PLUGINS = sorted((CORE.parents[1] / "plugins").glob("*/src/unlearn_suite_*"))
# A room may import rooms with a smaller number. `errors`, `specs`, `hookspecs` and the package itself are shared
# words; `models` belongs to the engine's floor; `builtin` is a plugin; `cli` and `worker` are doors.
ROOMS = {"plan": 1, "plugins": 2, "study": 3, "runner": 4, "models": 5, "engine": 5, "evaluate": 6, "store": 7}
ROOMS["report"] = 8
SHARED = {"errors", "specs", "hookspecs", "__init__"}
FREE = {"cli", "worker", "testing"}
LIGHT = ("plan", "plugins", "study", "runner", "cli", "models")


def imports(path: Path, top_level_only: bool = False) -> list[str]:
    """Absolute names of everything a file imports, type-checking blocks left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ["unlearn_suite", *path.relative_to(CORE).parts[:-1]] if path.is_relative_to(CORE) else []
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if top_level_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if isinstance(child, ast.Import):
                found.extend(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                stem = ".".join([*base, *([child.module] if child.module else [])])
                found.extend(f"{stem}.{alias.name}" for alias in child.names)
            visit(child)

    visit(tree)
    return found


def room_of(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def files() -> list[Path]:
    return sorted(CORE.rglob("*.py"))


def test_every_file_is_in_a_room():
    assert {room_of(p) for p in files()} <= {*ROOMS, *SHARED, *FREE, "builtin"}


def test_arrows_go_one_way():
    back_edges = []
    for path in files():
        room = room_of(path)
        if room in FREE or room == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "unlearn_suite" or len(parts) < 2 or parts[1] == room:
                continue
            target = parts[1]
            if room in SHARED and target not in SHARED | {"__version__"}:
                back_edges.append(f"{path.relative_to(CORE)} -> {target}")
            if target in FREE or (target == "builtin" and room != "builtin"):
                back_edges.append(f"{path.relative_to(CORE)} -> {target}")
            if target in ROOMS and ROOMS.get(room, 9) < ROOMS[target]:
                back_edges.append(f"{path.relative_to(CORE)} -> {target}")
    assert not back_edges


def test_light_rooms_do_not_import_heavy_packages_when_they_load():
    heavy = {"torch", "transformers", "datasets", "lm_eval", "sklearn", "scipy", "pyarrow", "safetensors"}
    found = [
        f"{path.relative_to(CORE)}: {name}"
        for path in files()
        if room_of(path) in LIGHT
        for name in imports(path, top_level_only=True)
        if name.split(".")[0] in heavy
    ]
    # models/ has helpers that only `load` imports
    assert not [line for line in found if not line.startswith("models/")]


@pytest.mark.parametrize("arguments", [["--help"], ["plugins", "list"], ["plugins", "show", "cosine-rmu"]])
def test_the_command_line_answers_without_torch(arguments):
    code = (
        "import sys, unlearn_suite.cli as c\n"
        f"sys.argv = ['unlearn-suite', *{arguments!r}]\n"
        "try:\n    c.main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules, 'heavy'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PLUGINS, ids=lambda p: p.name)
def test_plugins_import_public_names_only(package):
    public = set(unlearn_suite.__all__)
    for path in package.rglob("*.py"):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "unlearn_suite":
                assert len(parts) == 2 and parts[1] in public, f"{path}: {name}"


def test_public_names_exist():
    for name in unlearn_suite.__all__:
        assert getattr(unlearn_suite, name) is not None
