"""registry.yaml: found in a source tree and in a wheel, checked, replaceable."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite import __version__
from unlearn_suite.errors import PREREQUISITE, PrerequisiteError
from unlearn_suite.plugins import load_catalog, read_registry
from unlearn_suite.plugins import registry as room
from unlearn_suite.plugins.entry import KINDS
from unlearn_suite.plugins.registry import Registry

ROOT = Path(__file__).parents[3]


def test_the_shipped_registry_tells_the_truth_about_what_is_installed() -> None:
    """Every distribution of this repository stands in it, with exactly what it brings."""
    registry, catalog = read_registry(), load_catalog()
    ours = registry.plugins["unlearn-suite"]
    for kind in KINDS:
        have = sorted(entry.spec.name for entry in catalog.entries(kind) if entry.distribution == "unlearn-suite")
        listed = sorted(ours.provides.get(kind, ()))
        assert listed == have, f"registry.yaml: plugins.unlearn-suite.provides.{kind} must be [{', '.join(have)}]"


def test_the_shipped_registry_is_complete() -> None:
    registry, catalog = read_registry(), load_catalog()
    assert registry.plugins["unlearn-suite"].versions == f"=={__version__}"
    problems = {entry.spec.name for entry in catalog.entries("problem") if entry.distribution == "unlearn-suite"}
    families = {name for family in registry.families.values() for name in family.problems}
    assert problems <= families, f"registry.yaml: put {sorted(problems - families)} into one of its families"
    for name, asset in registry.data.items():
        if asset.kind == "package":
            package, _, folder = asset.source.partition(":")
            assert files(package).joinpath(folder).is_dir(), f"registry.yaml: data.{name}.source is no folder"
    for one in registry.reproductions:
        assert (ROOT / one.plan).is_file(), f"registry.yaml: there is no plan {one.plan}"


def test_the_schema_has_a_word_on_every_field() -> None:
    def models(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield schema
        yield from schema.get("$defs", {}).values()

    for model in models(Registry.model_json_schema()):
        assert all(field.get("description") for field in model.get("properties", {}).values()), model["title"]


def test_found_inside_a_wheel_and_beside_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "core" / "unlearn_suite" / "plugins"
    package.mkdir(parents=True)
    monkeypatch.setattr(room, "__file__", str(package / "registry.py"))
    with pytest.raises(PrerequisiteError, match=r"has no registry\.yaml"):
        room.registry_path()
    (tmp_path / "registry.yaml").write_text("registry: 1\n")
    assert room.registry_path() == tmp_path / "registry.yaml"
    (package.parent / "registry.yaml").write_text("registry: 1\n")
    assert room.registry_path() == package.parent / "registry.yaml"


WHEEL = "{kind: wheel, requirement: a==1, member: m, download_bytes: 1, disk_bytes: 1, wheel_sha256: X, sha256: X}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("registry: 2\n", "registry: "),
        ("registry: 1\nmodells: {}\n", "modells: Extra inputs"),
        ("registry: 1\nmodels: {a: {kind: tape}}\n", "models.a: "),
        ("registry: 1\nmodels: {a: {kind: hub, hf: a/b, revision: main}}\n", "models.a.hub.revision: "),
        (f"registry: 1\nmodels: {{a: {WHEEL}}}\n", "models.a.wheel.wheel_sha256: "),
        ("registry: 1\nmodels: {../a: {kind: folder, path: x}}\n", "bad asset name '../a'"),
        ("registry: 1\ndata: {a: {kind: hub, summary: s, source: a/b, licence: MIT}}\n", "need `revision`"),
        ("registry: 1\ndata: {a: {kind: url, summary: s, source: x, licence: MIT}}\n", "needs its `sha256`"),
        ("registry: 1\nfamilies: {a: {summary: s, problems: [nix]}}\n", "'nix', which no known plugin provides"),
        ("registry: 1\nplugins: {a: {summary: s, status: released, versions: many}}\n", "Invalid specifier"),
        ("registry: 1\nreproductions: [{paper: p}]\n", "reproductions.0.what: "),
        ("registry: [1\n", "expected"),
        ("", "valid dictionary"),
    ],
)
def test_a_registry_of_ones_own_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    monkeypatch.setenv(room.REGISTRY_VARIABLE, str(file))
    with pytest.raises(PrerequisiteError) as caught:
        read_registry()
    assert (caught.value.where, caught.value.exit_code) == (str(file), PREREQUISITE)
    assert told in caught.value.message


def test_a_registry_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(room.REGISTRY_VARIABLE, str(tmp_path / "none.yaml"))
    with pytest.raises(PrerequisiteError) as caught:
        read_registry()
    assert room.REGISTRY_VARIABLE in caught.value.hint
