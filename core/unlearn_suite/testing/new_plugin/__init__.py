"""A new plugin from the templates: a small, complete distribution that passes its own tests."""

from __future__ import annotations

import re
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.version import Version

from ... import __version__
from ...errors import PlanError

KINDS = ("objective", "dataset", "metric", "problem")
TEMPLATES = Path(__file__).parent / "templates"
PREFIX = "unlearn-suite-"
_NAME = re.compile(r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")

SUMMARIES = {
    "objective": "Turn forget activations towards a random direction, keep the others",
    "dataset": "Ten plain sentences",
    "metric": "How well the model predicts each text",
    "problem": "Forget what is said of a harbour, keep what is said of a kitchen",
}
FILES = {
    "objective": {"objective.py": "the equation"},
    "dataset": {"data.py": "how the examples are made", "texts.txt": "the texts"},
    "metric": {"metric.py": "the measurement"},
    "problem": {"data.py": "the examples", "{name}.yaml": "the problem: data roles, metrics, default arm"},
}


def write_plugin(name: str, kind: str, into: Path) -> Path:
    """Write `into/unlearn-suite-NAME` and return it.

    Raises `PlanError` for a name that is none, and for a folder that is there and not empty.
    """
    bare = name.removeprefix(PREFIX)
    if not _NAME.match(bare):
        hint = "use lower-case letters, digits and single '-', a letter first"
        raise PlanError(f"{name!r} is no name for a plugin", code="plugin-name", hint=hint)
    package = f"{PREFIX}{bare}".replace("-", "_")
    if find_spec(package) is not None:
        message = f"there is a package {package} already, which this one would hide or overwrite"
        raise PlanError(message, code="plugin-name", hint="choose another name, or uninstall it first")
    folder = into / f"{PREFIX}{bare}"
    if folder.exists() and any(folder.iterdir()):
        raise PlanError("the folder is not empty", code="plugin-folder", where=str(folder), hint="choose another --to")
    words = _words(bare, kind)
    for source in (TEMPLATES / "common", TEMPLATES / kind):
        for template in sorted(path for path in source.rglob("*.j2") if path.is_file()):
            inside = template.relative_to(source).as_posix().removesuffix(".j2")
            target = folder / inside.replace("PACKAGE", words["package"]).replace("NAME", bare)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_rendered(template, words), encoding="utf-8")
    return folder


def _words(name: str, kind: str) -> dict[str, Any]:
    """What the templates may say."""
    version = Version(__version__)
    bounds = f">={version.major}.{version.minor},<{version.major}.{version.minor + 1}"
    return {
        "name": name,
        "kind": kind,
        "distribution": f"{PREFIX}{name}",
        "package": f"{PREFIX}{name}".replace("-", "_"),
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "summary": SUMMARIES[kind],
        "files": {file.format(name=name): text for file, text in FILES[kind].items()},
        "bounds": bounds,
        "year": date.today().year,
    }


def _rendered(template: Path, words: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(template.read_text(encoding="utf-8")).render(words)
