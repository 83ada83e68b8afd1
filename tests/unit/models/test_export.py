"""Export: base + patch is the trained model, bit for bit, in a folder that transformers loads as it is."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_suite import models
from unlearn_suite.engine import patch
from unlearn_suite.engine.patch import tensor_hash
from unlearn_suite.errors import PrerequisiteError
from unlearn_suite.models.export import Exported, export_checkpoint
from unlearn_suite.models.patch_file import PatchFile
from unlearn_suite.models.tensor_file import TensorFile, raw
from unlearn_suite.testing.tiny import save_tiny, tiny_model, tiny_tokenizer

ABOUT = {"ref": {"path": "here"}, "name": "tiny", "source": "", "licence": "", "plan": "small"}
PROVENANCE = {"id": "0123456789", "problem": "letters", "arm": "push", "seed": 3, "stages": [{"use": "x/push"}]}


def train(
    base: Path, path: Path, *parts: str, by: float = 0.5, dtype: torch.dtype = torch.float32
) -> tuple[Any, PatchFile]:
    """The base with every parameter changed whose name has one of `parts` in it, and the patch of that."""
    model, _ = models.load({"path": str(base)}, dtype, "cpu")
    chosen = {n: p for n, p in model.named_parameters() if any(part in n for part in parts)}
    assert chosen
    originals = {n: p.detach().clone() for n, p in chosen.items()}
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in chosen.values():
            parameter.add_((by * torch.randn(parameter.shape, generator=generator)).to(dtype))
    path.parent.mkdir(exist_ok=True)
    patch.save(path, model, originals, PROVENANCE)
    return model, PatchFile(path)


def exported(base: Path, target: Path, *patches: PatchFile, **options: Any) -> tuple[Any, Exported]:
    done = export_checkpoint(base, patches, target, about=ABOUT, **options)
    model, info = AutoModelForCausalLM.from_pretrained(target, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return model.eval(), done


def assert_same(found: Any, expected: Any) -> None:
    """Every tensor, and what the model computes."""
    values: Mapping[str, torch.Tensor] = dict(expected.state_dict())
    assert found.state_dict().keys() == values.keys()
    assert all(torch.equal(value, values[name]) for name, value in found.state_dict().items())
    ids = torch.arange(4, 16)[None]
    with torch.no_grad():
        torch.testing.assert_close(found(ids).logits, expected(ids).logits)


def sharded(folder: Path, arch: str = "llama", **overrides: Any) -> Path:
    tiny_model(arch, **overrides).save_pretrained(folder, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.mark.parametrize(
    ("arch", "overrides", "parts"),
    [
        ("llama", {}, ["1.mlp.down_proj", "2.mlp"]),
        ("llama", {"tie_word_embeddings": True}, ["embed_tokens", "norm"]),
        ("llama", {"tie_word_embeddings": False}, ["lm_head"]),
        ("gpt2", {}, ["h.1.mlp.c_proj", "wte", "ln_f"]),
        ("gpt_neox", {}, ["layers.3.mlp", "embed_out"]),
        ("gemma2", {}, ["embed_tokens", "3.self_attn"]),
        ("olmo2", {}, ["layers.0."]),
        ("qwen3", {}, [""]),
    ],
)
def test_a_sharded_base_with_a_patch_is_the_trained_model(tmp_path, arch, overrides, parts):
    base = sharded(tmp_path / "base", arch, **overrides)
    trained, made = train(base, tmp_path / "p.safetensors", *parts)
    model, done = exported(base, tmp_path / "out", made)
    assert_same(model, trained)
    assert set(done.tensors) == set(made.entries) and done.shards == len(list(base.glob("*.safetensors")))
    index = "model.safetensors.index.json"
    assert json.loads((tmp_path / "out" / index).read_text()) == json.loads((base / index).read_text())


def test_only_the_changed_tensors_differ_and_everything_else_is_kept(tmp_path):
    base = sharded(tmp_path / "base")
    (base / "LICENSE").write_text("free")
    (base / "chat_template.jinja").write_text("{{ messages }}")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool.jinja").write_text("x")
    (base / "MANIFEST.json").write_text("{}")
    (base / "consolidated.safetensors").write_bytes(b"other weights")
    (base / "pytorch_model.bin.index.json").write_text("{}")
    _, made = train(base, tmp_path / "p.safetensors", "1.mlp.down_proj")
    export_checkpoint(base, [made], tmp_path / "out", about=ABOUT)
    names = {path.relative_to(base) for path in base.rglob("*") if path.is_file()}
    left_out = {Path("MANIFEST.json"), Path("consolidated.safetensors"), Path("pytorch_model.bin.index.json")}
    found = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == names - left_out | {Path("README.md"), Path("unlearning.json")}
    differ = [n for n in found & names if (base / n).read_bytes() != (tmp_path / "out" / n).read_bytes()]
    assert {n.suffix for n in differ} <= {".safetensors", ".json"}
    shards = [n for n in differ if n.suffix == ".safetensors"]
    assert len(shards) == 1
    before, after = load_file(base / shards[0]), load_file(tmp_path / "out" / shards[0])
    changed = [n for n in before if not torch.equal(before[n], after[n])]
    assert changed == ["model.layers.1.mlp.down_proj.weight"]
    assert AutoTokenizer.from_pretrained(tmp_path / "out").encode("abc") == tiny_tokenizer().encode("abc")


def _edit(folder: Path, change: Any) -> None:
    state = load_file(folder / "model.safetensors")
    save_file(change(state), folder / "model.safetensors", metadata={"format": "pt"})


def test_both_stored_copies_of_a_tied_tensor_change(tmp_path):
    base = save_tiny(tmp_path / "base", tie_word_embeddings=True)
    _edit(base, lambda state: {**state, "lm_head.weight": state["model.embed_tokens.weight"].clone()})
    trained, made = train(base, tmp_path / "p.safetensors", "embed_tokens")
    model, _ = exported(base, tmp_path / "out", made)
    assert_same(model, trained)
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"])


def test_a_tied_tensor_that_is_stored_under_its_other_name(tmp_path):
    base = save_tiny(tmp_path / "base", tie_word_embeddings=True)
    _edit(base, lambda state: {"lm_head.weight": state.pop("model.embed_tokens.weight"), **state})
    trained, made = train(base, tmp_path / "p.safetensors", "embed_tokens")
    model, _ = exported(base, tmp_path / "out", made)
    assert_same(model, trained)


def test_equal_copies_of_an_untied_model_stay_two_tensors(tmp_path):
    base = save_tiny(tmp_path / "base", tie_word_embeddings=False)
    _edit(base, lambda state: {**state, "lm_head.weight": state["model.embed_tokens.weight"].clone()})
    trained, made = train(base, tmp_path / "p.safetensors", "embed_tokens")
    model, _ = exported(base, tmp_path / "out", made)
    assert_same(model, trained)
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_names_without_the_prefix_of_the_causal_model(tmp_path):
    base = save_tiny(tmp_path / "base", "gpt2")
    _edit(base, lambda state: {name.removeprefix("transformer."): value for name, value in state.items()})
    trained, made = train(base, tmp_path / "p.safetensors", "h.2.mlp.c_fc", "wpe")
    assert "transformer.wpe.weight" in made.entries
    model, _ = exported(base, tmp_path / "out", made)
    assert_same(model, trained)
    assert "wpe.weight" in load_file(tmp_path / "out" / "model.safetensors")


def bf16_base(folder: Path) -> Path:
    tiny_model().to(torch.bfloat16).save_pretrained(folder, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_the_dtype_of_the_base_is_kept_and_what_rounding_undoes_is_told(tmp_path):
    base = bf16_base(tmp_path / "base")
    trained, made = train(base, tmp_path / "p.safetensors", "1.mlp.down_proj", by=1e-3)
    model, done = exported(base, tmp_path / "out", made)
    name = "model.layers.1.mlp.down_proj.weight"
    assert {value.dtype for value in model.state_dict().values()} == {torch.bfloat16}
    assert torch.equal(model.state_dict()[name], trained.state_dict()[name].bfloat16())
    before = dict(tiny_model().named_parameters())[name].bfloat16()
    assert done.lost == int((trained.state_dict()[name].bfloat16() == before).sum()) > 0
    assert done.changed == before.numel() and done.rounded == {name: "F32 -> BF16"}
    assert json.loads((tmp_path / "out" / "unlearning.json").read_text())["rounded"] == done.rounded


@pytest.mark.parametrize("sharding", [True, False])
def test_another_dtype_when_asked_for(tmp_path, sharding):
    base = bf16_base(tmp_path / "base")
    if not sharding:
        state = {k: v for file in base.glob("*.safetensors") for k, v in load_file(file).items()}
        for file in base.glob("model*"):
            file.unlink()
        save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    trained, made = train(base, tmp_path / "p.safetensors", "1.mlp.down_proj", by=1e-3)
    model, done = exported(base, tmp_path / "out", made, dtype=torch.float32)
    assert_same(model, trained)
    assert (done.lost, done.rounded) == (0, {})
    assert done.bytes == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    if sharding:
        size = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
        assert size == 4 * sum(p.numel() for p in trained.state_dict().values())


def test_a_patch_in_bf16_on_a_base_in_fp32(tmp_path):
    base = save_tiny(tmp_path / "base")
    trained, made = train(base, tmp_path / "p.safetensors", "2.mlp", dtype=torch.bfloat16)
    model, _ = exported(base, tmp_path / "out", made)
    assert model.dtype == torch.float32
    for name in made.entries:
        assert torch.equal(model.state_dict()[name], trained.state_dict()[name].float())
    exact, _ = exported(base, tmp_path / "bf16", made, dtype=torch.bfloat16)
    assert_same(exact, trained)


def test_values_that_the_dtype_cannot_hold_are_refused(tmp_path):
    base = save_tiny(tmp_path / "base")
    _, made = train(base, tmp_path / "p.safetensors", "1.mlp.down_proj", by=1e5)
    with pytest.raises(PrerequisiteError, match="values that F16 cannot hold"):
        export_checkpoint(base, [made], tmp_path / "out", about=ABOUT, dtype=torch.float16)
    assert not (tmp_path / "out").exists()


def test_values_of_the_base_that_the_dtype_cannot_hold_are_refused(tmp_path):
    base = save_tiny(tmp_path / "base")
    _, made = train(base, tmp_path / "p.safetensors", "1.mlp.down_proj")
    fill = torch.tensor(-1e9)

    def large(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**state, "model.norm.weight": state["model.norm.weight"] + 1e5}

    _edit(base, lambda state: {**state, "model.layers.0.masked_bias": fill})
    export_checkpoint(base, [made], tmp_path / "mask", about=ABOUT, dtype=torch.float16)
    assert load_file(tmp_path / "mask/model.safetensors")["model.layers.0.masked_bias"] == -torch.inf
    _edit(base, large)
    with pytest.raises(PrerequisiteError, match="weight has values that F16 cannot hold") as caught:
        export_checkpoint(base, [made], tmp_path / "out", about=ABOUT, dtype=torch.float16)
    assert caught.value.where == str(base / "model.safetensors") and not (tmp_path / "out").exists()
    export_checkpoint(base, [made], tmp_path / "out", about=ABOUT, dtype=torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64])
@pytest.mark.parametrize("shape", [(5, 3), (7,), (2, 0), ()])
def test_tensors_are_read_as_safetensors_reads_them(tmp_path, dtype, shape):
    path = tmp_path / "x.safetensors"
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    tensors = {"b": torch.ones(3, dtype=torch.uint8), "a": (drawn * 3).to(dtype)}
    save_file(tensors, path, metadata={"k": "v"})
    file = TensorFile(path)
    assert file.metadata == {"k": "v"} and set(file.entries) == {"a", "b"}
    read = file.read("a")
    assert read.dtype == dtype and read.shape == tensors["a"].shape and torch.equal(read, tensors["a"])
    assert tensor_hash(read) == tensor_hash(load_file(path)["a"])
    assert raw(read) == path.read_bytes()[file.entries["a"].start :][: file.entries["a"].size]


def test_a_hash_is_over_dtype_shape_and_bytes():
    ones = torch.ones(2, 3)
    same = {tensor_hash(ones), tensor_hash(torch.ones(3, 2).t()), tensor_hash(ones.clone())}
    assert len(same) == 1
    others = {tensor_hash(t) for t in (ones, ones.bfloat16(), ones.reshape(3, 2), ones * 2, torch.tensor(1.0))}
    assert len(others) == 5


def test_no_more_than_a_few_tensors_are_in_memory(tmp_path):
    base = save_tiny(tmp_path / "base")
    size, count = 1 << 20, 24
    values = {f"model.layers.{i}.w": torch.full((size // 4,), float(i)) for i in range(count)}
    save_file(values, base / "model.safetensors", metadata={"format": "pt"})
    new = {"model.layers.3.w": torch.zeros(size // 4), "model.layers.9.w": torch.zeros(size // 4)}
    hashes = {name: tensor_hash(values[name]) for name in new}
    metadata = {"format": patch.FORMAT, "base_hashes": json.dumps(hashes), "provenance": "{}"}
    save_file(new, tmp_path / "p.safetensors", metadata=metadata)
    made = PatchFile(tmp_path / "p.safetensors")
    export_checkpoint(base, [made], tmp_path / "warm", about=ABOUT)  # imports are not counted
    tracemalloc.start()
    try:
        export_checkpoint(base, [made], tmp_path / "out", about=ABOUT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * size < count * size
    expected = {**values, **new}
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_what_the_checkpoint_tells_of_itself(tmp_path):
    base = save_tiny(tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    _, first = train(base, tmp_path / "a.safetensors", "1.mlp.down_proj")
    about = {**ABOUT, "licence": "apache-2.0", "source": "https://huggingface.co/owner/tiny"}
    export_checkpoint(base, [first], tmp_path / "one", about=about)
    told = json.loads((tmp_path / "one" / "unlearning.json").read_text())
    assert told["base"] == about and told["patches"][0]["provenance"] == PROVENANCE
    tensor = told["patches"][0]["tensors"]["model.layers.1.mlp.down_proj.weight"]
    state = load_file(tmp_path / "one" / "model.safetensors")
    assert tensor["sha256"] == tensor_hash(state["model.layers.1.mlp.down_proj.weight"])
    card = (tmp_path / "one" / "README.md").read_text()
    for word in ("license: apache-2.0", "base_model: owner/tiny", "`x/push`", "plan `small`", "problem letters"):
        assert word in card
    assert "# Tiny" not in card
    _, second = train(tmp_path / "one", tmp_path / "b.safetensors", "2.mlp.down_proj")
    export_checkpoint(tmp_path / "one", [second], tmp_path / "two", about=ABOUT)
    assert json.loads((tmp_path / "two" / "unlearning.json").read_text())["before"] == told


def test_the_same_export_has_the_same_bytes(tmp_path):
    base = save_tiny(tmp_path / "base")
    _, made = train(base, tmp_path / "p.safetensors", "1.mlp.down_proj")
    for name in ("one", "two"):
        export_checkpoint(base, [made], tmp_path / name, about=ABOUT)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_base_that_lacks_a_tensor_of_the_patch(tmp_path):
    base = save_tiny(tmp_path / "base")
    _, made = train(base, tmp_path / "p.safetensors", "1.mlp.down_proj")
    other = shutil.copytree(base, tmp_path / "other")
    _edit(other, lambda state: {name: value for name, value in state.items() if "1.mlp.down_proj" not in name})
    with pytest.raises(PrerequisiteError, match=r"model.layers.1.mlp.down_proj.weight is not among the \d+ tensors"):
        export_checkpoint(other, [made], tmp_path / "out", about=ABOUT)
    assert not (tmp_path / "out").exists()
