"""What every installation has keeps the promises of the conformance kit, and so does every plugin folder."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from unlearn_suite.testing import conformance

ROOT = Path(__file__).parents[3]

test_conformance = conformance.tests("builtin")


def test_every_plugin_of_this_repository_is_put_to_the_kit():
    ours = [p for p in entry_points(group="unlearn_suite") if p.dist and p.dist.name == "unlearn-suite"]
    for point in ours:
        if point.name == "builtin":
            continue
        test = ROOT / "plugins" / point.name / "tests" / "test_conformance.py"
        line = f'test_conformance = conformance.tests("{point.name}"'
        assert test.is_file() and line in test.read_text(), f"write {test.relative_to(ROOT)} with: {line}"
