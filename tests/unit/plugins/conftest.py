"""Distributions made up on the spot: a package and its metadata in a folder on the import path."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unlearn_suite.plugins import Catalog, PluginReport, load_catalog

GOOD = """\
from unlearn_suite import ObjectiveSpec, hookimpl


@hookimpl
def register_objectives(register):
    register(ObjectiveSpec("NAME", "does nothing", "PACKAGE.code:Nothing"))
"""

Install = Callable[..., Path]


@pytest.fixture()
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution on the path: `install("dist", source, ...)` gives its package folder."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def make(
        name: str,
        source: str = "",
        *,
        package: str = "",
        target: str = "",
        requires: str = "unlearn-suite>=0.1",
        version: str = "1.0",
        entry_points: str | None = None,
        code: str = "class Nothing:\n    pass\n",
    ) -> Path:
        package = package or name.replace("-", "_")
        folder = site / package
        folder.mkdir(exist_ok=True)
        good = GOOD.replace("NAME", name).replace("PACKAGE", package)
        (folder / "__init__.py").write_text(textwrap.dedent(source) or good, encoding="utf-8")
        (folder / "code.py").write_text(textwrap.dedent(code), encoding="utf-8")
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        points = f"[unlearn_suite]\nmain = {target or package}\n" if entry_points is None else entry_points
        (info / "entry_points.txt").write_text(points)
        return folder

    yield make
    for added in set(sys.modules) - before:
        origin = getattr(sys.modules[added], "__file__", None) or ""
        if origin.startswith(str(tmp_path)):
            del sys.modules[added]


@pytest.fixture()
def report_of() -> Callable[[str], PluginReport]:
    """The report of the only entry point of a distribution."""

    def find(distribution: str) -> PluginReport:
        (report,) = [one for one in load_catalog().reports if one.distribution == distribution]
        return report

    return find


@pytest.fixture()
def catalog() -> Callable[[], Catalog]:
    return load_catalog
