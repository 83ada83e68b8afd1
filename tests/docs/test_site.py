"""The docs build without a warning, and the pages made from the code are what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_is_what_the_code_says():
    """Run docs/reference/make_reference.py when this fails."""
    command = [sys.executable, str(DOCS / "reference" / "make_reference.py"), "--check"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, f"run docs/reference/make_reference.py for {told.stdout}{told.stderr}"


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    told = subprocess.run([*command, str(DOCS), str(tmp_path / "html")], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "html" / "tutorial" / "first-run.html").exists()
