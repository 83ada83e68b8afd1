"""Tensors by name on every architecture, and patches that know their base."""

from __future__ import annotations

import pytest
import torch

from unlearn_suite.engine import patch
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.errors import PlanError, PrerequisiteError
from unlearn_suite.testing.tiny import ARCHITECTURES, tiny_model


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_one_output_matrix_a_block_by_name(arch):
    model = tiny_model(arch)
    shape = ModelShape.of(model)
    assert shape.n_blocks == 4 and shape.hidden_size == 32
    for kind in ("mlp_out", "attn_out"):
        names = shape.select(kind, [1, 3])
        assert [shape.block_of(n) for n in names] == [1, 3]
        assert all(32 in shape.tensors[n] for n in names)
    mlp, attention = shape.select("mlp_out", [1])[0], shape.select("attn_out", [1])[0]
    assert 48 in shape.tensors[mlp] or arch in {"phi"}
    assert mlp != attention


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_norms_after_the_matrices_are_told_from_norms_before(arch):
    shape = ModelShape.of(tiny_model(arch))
    after = ("post_feedforward_layernorm", "post_attention_layernorm") if arch in {"gemma2", "gemma3", "olmo2"} else ()
    for block in range(4):
        assert shape.post_norms(block) == tuple(f"model.layers.{block}.{name}.weight" for name in after)
    assert shape.post_norm == bool(after)


@pytest.mark.parametrize(
    ("names", "after"),
    [
        (("post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"), (2, 0)),  # GLM-4
        (("input_layernorm", "post_attention_layernorm", "post_mlp_layernorm"), (2,)),
        (("input_layernorm", "post_attention_layernorm"), ()),
    ],
)
def test_norms_after_the_matrices_of_other_families(names, after):
    """By the names of the tensors alone; the first block has none."""
    full = [f"layers.1.{name}.weight" for name in names]
    shape = ModelShape(2, 8, 16, "layers", dict.fromkeys(("layers.0.mlp.down_proj.weight", *full), (8,)))
    assert shape.post_norms(1) == tuple(full[i] for i in after) and shape.post_norms(0) == ()
    assert shape.post_norm == bool(after)
    with pytest.raises(PlanError, match="block 2 does not exist"):
        shape.post_norms(2)


def test_faults_are_named():
    shape = ModelShape.of(tiny_model("llama"))
    with pytest.raises(PlanError, match="block 4 does not exist: the model has blocks 0 to 3"):
        shape.select("mlp_out", [4])
    with pytest.raises(PlanError, match="unknown tensor kind"):
        shape.select("mlp", [0])
    with pytest.raises(PlanError, match="no 'attn_qkv' tensor"):
        shape.select("attn_qkv", [0])
    with pytest.raises(PlanError, match="no tensor matches"):
        shape.match("nothing.*")
    assert shape.block_of("model.embed_tokens.weight") is None


def changed_model():
    model = tiny_model("llama")
    name = "model.layers.1.mlp.down_proj.weight"
    parameters = dict(model.named_parameters())
    originals = {n: parameters[n].detach().clone() for n in (name, "model.layers.2.mlp.down_proj.weight")}
    with torch.no_grad():
        parameters[name].mul_(1.5)
    return model, name, originals


def test_a_patch_holds_the_changed_tensors_only_and_restores_them(tmp_path):
    model, name, originals = changed_model()
    path = tmp_path / "patch.safetensors"
    patch.save(path, model, originals, {"id": "x"})
    tensors, _ = patch.load(path)
    assert set(tensors) == {name}
    base = tiny_model("llama")
    replaced = patch.apply(path, base)
    assert torch.equal(dict(base.named_parameters())[name], dict(model.named_parameters())[name])
    assert torch.equal(replaced[name], originals[name])


def test_a_patch_refuses_another_base(tmp_path):
    model, _, originals = changed_model()
    path = tmp_path / "patch.safetensors"
    patch.save(path, model, originals, {})
    other = tiny_model("llama", seed=9)
    before = {n: p.detach().clone() for n, p in other.named_parameters()}
    with pytest.raises(PrerequisiteError, match="another base model"):
        patch.apply(path, other)
    assert all(torch.equal(p, before[n]) for n, p in other.named_parameters())


def test_a_damaged_patch_is_one_clear_error(tmp_path):
    model, _, originals = changed_model()
    path = tmp_path / "patch.safetensors"
    patch.save(path, model, originals, {})
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(PrerequisiteError, match="cannot read the patch"):
        patch.load(path)
