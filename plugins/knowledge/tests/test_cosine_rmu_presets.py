"""Presets resolve in a plan and on models of their families' depth; tensors are found by name everywhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import torch

from unlearn_suite import ModelShape
from unlearn_suite.errors import PlanError
from unlearn_suite.plan import load_plan
from unlearn_suite.plugins import load_catalog
from unlearn_suite.testing.tiny import ARCHITECTURES, tiny_model
from unlearn_suite_knowledge.cosine_rmu.config import CosineRmuConfig
from unlearn_suite_knowledge.cosine_rmu.objective import CosineRmu

FAMILIES = {  # preset: (architecture, blocks, trained blocks)
    "llama3-8b-reconstruction": ("llama", 32, [5, 6, 7]),
    "mistral-7b-reconstruction": ("mistral", 32, [5, 6, 7]),
    "qwen2.5-7b-reconstruction": ("qwen2", 28, [4, 5, 6]),
    "olmo2-7b-reconstruction": ("olmo2", 32, [5, 6, 7]),
    "gemma2-9b-reconstruction": ("gemma2", 42, [7, 8, 9]),
    "llama3.2-1b-reconstruction": ("llama", 16, [2, 3, 4]),
    "smollm2-135m-reconstruction": ("llama", 30, [5, 6, 7]),
}
MLP_OUT = {"gpt2": "c_proj", "gpt_neox": "dense_4h_to_h", "phi": "fc2"}  # all others: down_proj
POST_NORMS = ("gemma2", "gemma3", "olmo2")
DEPTH = 12
"""blocks of the models that every preset is resolved on: one more than the deepest preset needs"""
PRESETS = Path(__file__).parents[1] / "src/unlearn_suite_knowledge/presets/cosine-rmu.yaml"


def plan_of(folder: Path, stage: str):
    (folder / "plan.yaml").write_text(
        f"plan: 1\nproblems: [everyday-knowledge]\narms: {{one: {{stages: [{{use: cosine-rmu, {stage}}}]}}}}\n"
    )
    return load_plan(folder / "plan.yaml", load_catalog())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_preset_resolves(name, tmp_path):
    arch, depth, blocks = FAMILIES[name]
    plan = plan_of(tmp_path, f"preset: {name}, steps: 11, with: {{margin: 0.5}}")
    (stage,) = plan.arms[0].stages
    assert stage.train.steps == 11 and stage.config.margin == 0.5  # the plan's own words go first
    layers = {"num_hidden_layers": depth}
    if arch == "gemma2":
        layers["layer_types"] = ["sliding_attention", "full_attention"] * (depth // 2)
    with torch.device("meta"):
        shape = ModelShape.of(tiny_model(arch, **layers))
    needs = CosineRmu(stage.config).requirements(shape)
    assert needs.reads == blocks[-1]
    assert CosineRmu(CosineRmuConfig()).requirements(shape).reads == blocks[-1]  # the depth rule says the same
    found = [shape.block_of(n) for n in needs.trainable if n.endswith("mlp.down_proj.weight")]
    assert found == blocks
    norms = [n for n in needs.trainable if n.endswith("post_feedforward_layernorm.weight")]
    assert len(norms) == (3 if arch in ("olmo2", "gemma2") else 0)
    assert any(name in note for note in plan.notes) == (name != "smollm2-135m-reconstruction")


@cache
def deep(arch: str) -> ModelShape:
    """A model of `DEPTH` blocks without weights."""
    layers = {"n_layer" if arch == "gpt2" else "num_hidden_layers": DEPTH}
    if arch.startswith("gemma"):
        layers["layer_types"] = ["sliding_attention", "full_attention"] * (DEPTH // 2)
    with torch.device("meta"):
        return ModelShape.of(tiny_model(arch, **layers))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_preset_names_the_same_tensors_on_every_architecture(name, arch, tmp_path):
    (stage,) = plan_of(tmp_path, f"preset: {name}").arms[0].stages
    objective, shape = CosineRmu(stage.config), deep(arch)
    assert shape.n_blocks == DEPTH
    if stage.config.post_norm and arch not in POST_NORMS:
        with pytest.raises(PlanError) as caught:
            objective.requirements(shape)
        assert caught.value.code == "no-such-tensor" and "`post_norm`" in str(caught.value)
        return
    needs = objective.requirements(shape)
    endings = [f"mlp.{MLP_OUT.get(arch, 'down_proj')}.weight"]
    endings += ["post_feedforward_layernorm.weight"] * stage.config.post_norm
    expected = {f"{shape.blocks_path}.{block}.{ending}" for block in FAMILIES[name][2] for ending in endings}
    assert expected <= set(shape.tensors)
    assert sorted(needs.trainable) == sorted(expected)
    assert needs.reads == FAMILIES[name][2][-1]


def test_every_preset_is_tested_and_every_field_has_its_source():
    lines = PRESETS.read_text().splitlines()
    assert {line[:-1] for line in lines if re.fullmatch(r"\S+:", line)} == set(FAMILIES)
    fields = [line for line in lines if re.match(r"    +\w+: \S", line)]
    assert len(fields) > 50
    assert not [line for line in fields if "#" not in line]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_one_matrix_in_each_block_by_name(arch):
    shape = ModelShape.of(tiny_model(arch))
    needs = CosineRmu(CosineRmuConfig(block=2)).requirements(shape)
    assert [shape.block_of(name) for name in needs.trainable] == [0, 1, 2]
    ending = {"gpt2": "mlp.c_proj", "gpt_neox": "mlp.dense_4h_to_h", "phi": "mlp.fc2"}.get(arch, "mlp.down_proj")
    assert all(name.endswith(f".{ending}.weight") for name in needs.trainable)
    sizes = {shape.tensors[name] for name in needs.trainable}
    assert sizes == ({(48, 32)} if arch == "gpt2" else {(32, shape.tensors[needs.trainable[0]][1])})
