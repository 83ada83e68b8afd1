"""registry.yaml: found in a source tree and in a wheel, checked, replaceable."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlearn_suite.errors import PREREQUISITE, PrerequisiteError
from unlearn_suite.plugins import load_catalog, read_registry
from unlearn_suite.plugins import registry as room
from unlearn_suite.plugins.entry import KINDS


def test_the_shipped_registry_tells_the_truth_about_us() -> None:
    registry = read_registry()
    assert registry.models["smollm2-135m-instruct"].kind == "wheel"
    ours = registry.plugins["unlearn-suite"]
    catalog = load_catalog()
    for kind in KINDS:
        have = {entry.spec.name for entry in catalog.entries(kind) if entry.distribution == "unlearn-suite"}
        assert set(ours.provides.get(kind, ())) == have


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
