"""probe-directions on every architecture: what is trained there, norms after the matrices, very few blocks."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from unlearn_suite import ModelShape, PlanError
from unlearn_suite.plan import load_plan
from unlearn_suite.plugins import load_catalog
from unlearn_suite.testing.tiny import ARCHITECTURES, tiny_model
from unlearn_suite_toxicity.probe_directions.config import ProbeDirectionsConfig
from unlearn_suite_toxicity.probe_directions.objective import ProbeDirections

PRESETS = {  # preset: (blocks of its model, blocks that are trained)
    "llama3-8b-reconstruction": (32, range(7, 29)),
    "mistral-7b-reconstruction": (32, range(7, 29)),
    "qwen2.5-7b-reconstruction": (28, range(6, 25)),
    "olmo2-7b-reconstruction": (32, range(7, 29)),
    "gemma2-9b-reconstruction": (42, range(9, 37)),
    "llama3.2-1b-reconstruction": (16, range(3, 15)),
    "smollm2-135m-reconstruction": (30, range(5, 15)),
    "smollm2-135m-fluent-reconstruction": (30, range(3, 26)),
}
POST_NORM = {"gemma2", "gemma3", "olmo2"}
WRITES = {  # the ends of the names of what each architecture writes to the residual stream with
    "gpt2": ("mlp.c_proj.weight", "attn.c_proj.weight"),
    "gpt_neox": ("mlp.dense_4h_to_h.weight", "attention.dense.weight"),
    "phi": ("mlp.fc2.weight", "self_attn.dense.weight"),
}
LLAMA_WRITES = ("mlp.down_proj.weight", "self_attn.o_proj.weight")
NORMS = ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")


@functools.cache
def shape_of(arch: str, depth: int) -> ModelShape:
    layers: dict[str, object] = {"n_layer" if arch == "gpt2" else "num_hidden_layers": depth}
    if arch in {"gemma2", "gemma3"}:
        layers["layer_types"] = (["sliding_attention", "full_attention"] * depth)[:depth]
    with torch.device("meta"):
        return ModelShape.of(tiny_model(arch, **layers))


def named(shape: ModelShape, ends: tuple[str, ...], blocks: range) -> set[str]:
    return {f"{shape.blocks_path}.{block}.{end}" for block in blocks for end in ends}


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets")
    arms = "\n".join(
        f"  arm{i}: {{stages: [{{use: probe-directions, preset: {name}}}]}}" for i, name in enumerate(PRESETS)
    )
    (folder / "plan.yaml").write_text(f"plan: 1\nproblems: [everyday-toxicity]\narms:\n{arms}\n")
    plan = load_plan(folder / "plan.yaml", load_catalog())
    found = {arm.name: arm.stages[0].config for arm in plan.arms if arm.stages}
    return {name: found[f"arm{i}"] for i, name in enumerate(PRESETS)}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_preset_names_both_matrices_of_each_of_its_blocks(arch, configs):
    for name, (depth, blocks) in PRESETS.items():
        shape, config = shape_of(arch, depth), configs[name]
        if config.post_norm and arch not in POST_NORM:
            with pytest.raises(PlanError, match="post_norm"):
                ProbeDirections(config).requirements(shape)
            config = config.model_copy(update={"post_norm": False})
        needs = ProbeDirections(config).requirements(shape)
        ends = WRITES.get(arch, LLAMA_WRITES) + (NORMS if config.post_norm else ())
        assert set(needs.trainable) == named(shape, ends, blocks), name
        assert len(needs.trainable) == len(blocks) * len(ends) and set(needs.trainable) <= set(shape.tensors)
        assert needs.reads == blocks[-1]


def test_the_larger_presets_label_and_judge_with_care(configs):
    for name, config in configs.items():
        large = not name.startswith("smollm2")
        assert (getattr(config.scorer, "model", "") == "unbiased") == (config.toxic_from == 0.75) == large
        assert config.benign_to == 0.25 and config.test_share == (0.143 if large else 0.0)
        assert config.post_norm == name.startswith(("olmo2", "gemma2"))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_step_trains_the_matrices_of_every_architecture(stage, arch):
    ran = stage(arch=arch, train={"steps": 2, "warmup": 0})
    shape = ModelShape.of(ran.model)
    assert ran.changed == named(shape, WRITES.get(arch, LLAMA_WRITES), range(3))
    assert all(math.isfinite(value) for row in ran.rows for value in row.values())
    assert ran.rows[0]["retain"] == 0.0 < ran.rows[1]["retain"]


@pytest.mark.parametrize("arch", sorted(POST_NORM))
def test_post_norm_trains_the_norms_after_both_matrices(stage, arch):
    ran = stage(arch=arch, post_norm=True, train={"steps": 6})
    shape = ModelShape.of(ran.model)
    assert ran.changed == named(shape, LLAMA_WRITES + NORMS, range(3))
    assert ran.rows[-1]["projection_2"] < ran.rows[0]["projection_2"]


@pytest.mark.parametrize("arch", sorted(set(ARCHITECTURES) - POST_NORM))
def test_post_norm_is_refused_where_there_are_none(arch):
    objective = ProbeDirections(ProbeDirectionsConfig(blocks=(1, 2), post_norm=True))
    with pytest.raises(PlanError, match="`post_norm` asks for the norms after attention and MLP") as caught:
        objective.requirements(shape_of(arch, 4))
    assert "leave `post_norm` out" in caught.value.hint


@pytest.mark.parametrize(("depth", "blocks"), [(1, [0]), (2, [0]), (3, [1]), (4, [1, 2]), (30, [6, 10, 14, 18, 22])])
def test_the_default_blocks_are_blocks_of_the_model(depth, blocks):
    objective, shape = ProbeDirections(ProbeDirectionsConfig()), shape_of("llama", depth)
    assert objective._blocks(shape) == blocks
    needs = objective.requirements(shape)
    assert {shape.block_of(name) for name in needs.trainable} == set(range(max(0, blocks[0] - 1), blocks[-1] + 1))


def test_a_model_of_one_block_is_steered_at_it(stage):
    ran = stage(blocks=None, shape={"num_hidden_layers": 1}, train={"steps": 4})
    assert ran.objective.steering.blocks == [0]
    assert ran.rows[-1]["projection_0"] < ran.rows[0]["projection_0"]
