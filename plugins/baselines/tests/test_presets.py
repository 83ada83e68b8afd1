"""Presets resolve in a plan, and say where every field comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unlearn_suite.plan import load_plan
from unlearn_suite.plugins import load_catalog
from unlearn_suite_baselines.cards import CARDS

FOLDER = Path(__file__).parents[1] / "src/unlearn_suite_baselines/presets"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_every_file_belongs_to_an_objective_that_names_it():
    named = {card.SPEC.name: card.SPEC.presets for card in CARDS if card.SPEC.presets}
    assert named == {file.stem: f"unlearn_suite_baselines:presets/{file.name}" for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_presets_resolve_and_every_field_has_its_source(file, tmp_path):
    lines = file.read_text().splitlines()
    fields = [line for line in lines if re.match(r"    +\w+: \S", line)]
    assert fields and not [line for line in fields if "#" not in line]
    names = [line[:-1] for line in lines if re.fullmatch(r"\S+:", line)]
    arms = "".join(
        f"  arm{i}: {{stages: [{{use: {file.stem}, preset: {name}, warmup: 2}}]}}\n" for i, name in enumerate(names)
    )
    (tmp_path / "plan.yaml").write_text(f"plan: 1\nproblems: [everyday-knowledge]\narms:\n{arms}")
    plan = load_plan(tmp_path / "plan.yaml", load_catalog())
    assert [arm.stages[0].train.warmup for arm in plan.arms] == [2] * len(names)
    for name in names:  # what nobody has run at its scale is said
        assert any(name in note for note in plan.notes) == name.endswith(
            ("published", "sam", "rs", "gp", "cr", "wa")
        ), name
