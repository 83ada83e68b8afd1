"""Sphinx: `sphinx-build -W -b html docs docs/_build/html`. Nothing of the suite is imported."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent

project = "unlearn-suite"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
author = "The unlearn-suite authors"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"unlearn-suite {release}"
html_show_sphinx = html_show_copyright = False
myst_heading_anchors = 3
nitpicky = True
