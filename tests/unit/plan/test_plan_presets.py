"""Presets: laid under a stage's own words, told where nobody has run them, and wrong names one clear line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unlearn_suite import Config, ObjectiveSpec
from unlearn_suite.plan.faults import Faults
from unlearn_suite.plan.presets import read_presets, under_preset
from unlearn_suite.plan.text import read_yaml

PRESETS = """
big-reconstruction:
  summary: For big models
  stage: {lr: 1.0e-5, steps: 200, with: {depth: 3, rate: 0.5}}
small:
  summary: For small models
  tried: docs/results/small.md
  stage: {with: {depth: 1}}
"""


@pytest.fixture
def spec(tmp_path, monkeypatch) -> ObjectiveSpec:
    monkeypatch.delitem(sys.modules, "preset_plugin", raising=False)
    package = tmp_path / "preset_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "presets.yaml").write_text(PRESETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return ObjectiveSpec("push", "x", "m:C", Config, presets="preset_plugin:presets.yaml")


def laid_under(spec: ObjectiveSpec, text: str) -> tuple[dict, str, Faults]:
    faults = Faults()
    node = read_yaml(Path("plan.yaml"), faults, text=text)
    assert node is not None
    found, note = under_preset(node, spec, faults)
    return found.plain(), note, faults


def test_the_stages_own_words_go_first(spec):
    stage, note, faults = laid_under(spec, "{use: push, preset: big-reconstruction, steps: 7, with: {rate: 0.1}}")
    assert stage == {"use": "push", "lr": 1e-5, "steps": 7, "with": {"depth": 3, "rate": 0.1}}
    assert "big-reconstruction" in note and "not been run" in note and not len(faults)


def test_one_that_was_run_has_no_note_and_without_one_nothing_changes(spec):
    stage, note, _ = laid_under(spec, "{use: push, preset: small}")
    assert stage == {"use": "push", "with": {"depth": 1}} and note == ""
    stage, note, _ = laid_under(spec, "{use: push, lr: 1.0}")
    assert stage == {"use": "push", "lr": 1.0} and note == ""


@pytest.mark.parametrize(
    ("preset", "presets", "words"),
    [
        ("smal", "preset_plugin:presets.yaml", "did you mean 'small'"),
        ("small", "", "ships none"),
        ("small", "no_such_package:presets.yaml", "tell the plugin's author"),
        ("small", "preset_plugin:other.yaml", "no such file"),
    ],
)
def test_what_is_wrong_is_told_at_its_place(spec, preset, presets, words):
    changed = ObjectiveSpec("push", "x", "m:C", Config, presets=presets)
    _, _, faults = laid_under(changed, f"{{use: push, preset: {preset}}}")
    assert len(faults) == 1
    with pytest.raises(Exception) as caught:
        faults.stop("plan.yaml")
    assert words in str(caught.value) or words in str([vars(e) for e in caught.value.errors])


def test_a_file_that_is_wrong_is_told(spec, tmp_path):
    (tmp_path / "preset_plugin" / "presets.yaml").write_text("small: {stage: {}}")
    faults = Faults()
    assert read_presets(spec, faults) == {} and len(faults) == 1
