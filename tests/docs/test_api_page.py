"""docs/reference/api.md says what the code says, of every public name and of every member of a public class."""

from __future__ import annotations

import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs/reference"


def test_the_page_is_what_the_code_says():
    """Run docs/reference/make_api.py when this fails; where something public lacks a docstring, it says what."""
    spec = importlib.util.spec_from_file_location("make_api", FOLDER / "make_api.py")
    assert spec and spec.loader
    make_api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_api)
    assert (FOLDER / "api.md").read_text(encoding="utf-8") == make_api.page()
