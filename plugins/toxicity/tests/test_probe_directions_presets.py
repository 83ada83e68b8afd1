"""Presets resolve in a plan, train the blocks they name, and say where every field comes from."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from unlearn_suite import ModelShape
from unlearn_suite.plan import load_plan
from unlearn_suite.plugins import load_catalog
from unlearn_suite.testing.tiny import tiny_model
from unlearn_suite_toxicity.probe_directions.objective import ProbeDirections

FAMILIES = {  # preset: (architecture, blocks of the model)
    "llama3-8b-reconstruction": ("llama", 32),
    "mistral-7b-reconstruction": ("mistral", 32),
    "qwen2.5-7b-reconstruction": ("qwen2", 28),
    "olmo2-7b-reconstruction": ("olmo2", 32),
    "gemma2-9b-reconstruction": ("gemma2", 42),
    "llama3.2-1b-reconstruction": ("llama", 16),
    "smollm2-135m-reconstruction": ("llama", 30),
    "smollm2-135m-fluent-reconstruction": ("llama", 30),
}
PRESETS = Path(__file__).parents[1] / "src/unlearn_suite_toxicity/presets/probe-directions.yaml"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_preset_resolves(name, tmp_path):
    arch, depth = FAMILIES[name]
    stage = f"preset: {name}, steps: 11, with: {{kappa: 0.5}}"
    (tmp_path / "plan.yaml").write_text(
        f"plan: 1\nproblems: [everyday-toxicity]\narms: {{one: {{stages: [{{use: probe-directions, {stage}}}]}}}}\n"
    )
    plan = load_plan(tmp_path / "plan.yaml", load_catalog())
    (found,) = plan.arms[0].stages
    assert found.train.steps == 11 and found.config.kappa == 0.5  # the plan's own words go first
    layers = {"num_hidden_layers": depth}
    if arch == "gemma2":
        layers["layer_types"] = ["sliding_attention", "full_attention"] * (depth // 2)
    with torch.device("meta"):
        shape = ModelShape.of(tiny_model(arch, **layers))
    trained = {shape.block_of(n) for n in ProbeDirections(found.config).requirements(shape).trainable}
    blocks = found.config.blocks
    assert {blocks[0], blocks[-1]} <= trained and max(trained) == blocks[-1]
    assert 0.13 * depth <= blocks[0] and blocks[-1] <= 0.9 * depth
    assert all(after - before >= 2 for before, after in pairwise(blocks))
    assert any(name in note for note in plan.notes) == (not name.startswith("smollm2-135m"))


def test_every_preset_is_tested_and_every_field_has_its_source():
    lines = PRESETS.read_text().splitlines()
    assert {line[:-1] for line in lines if re.fullmatch(r"\S+:", line)} == set(FAMILIES)
    fields = [line for line in lines if re.match(r"    +\w+: \S", line)]
    assert len(fields) > 80
    assert not [line for line in fields if "#" not in line]
