"""Folders of models: what is loaded, what is refused, what tells two of them apart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearn_suite import models
from unlearn_suite.errors import PREREQUISITE, PlanError, PrerequisiteError
from unlearn_suite.models import memory
from unlearn_suite.models.load import load_part
from unlearn_suite.models.outline import outline
from unlearn_suite.testing.tiny import save_tiny, tiny_model


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny")


def refused(folder: Path, **ref: object) -> PrerequisiteError:
    with pytest.raises(PrerequisiteError) as caught:
        models.load({"path": str(folder), **ref}, torch.float32, "cpu")
    assert caught.value.where == str(folder)
    assert caught.value.exit_code == PREREQUISITE
    assert caught.value.hint
    return caught.value


def edit(file: Path, **update: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **update}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folder_is_loaded(folder: Path, dtype: torch.dtype) -> None:
    model, tokenizer = models.load({"path": str(folder)}, dtype, "cpu")
    expected = tiny_model().state_dict()
    assert all(torch.equal(value, expected[name].to(dtype)) for name, value in model.state_dict().items())
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("right", "<pad>")


def test_capped_attention_is_computed_eagerly(tmp_path: Path) -> None:
    model, _ = models.load({"path": save_tiny(tmp_path / "gemma", "gemma2")}, torch.float32, "cpu")
    assert model.config._attn_implementation == "eager"


def test_a_tokenizer_without_padding_token_uses_the_end_token(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", pad_token=None)
    _, tokenizer = models.load({"path": str(folder)}, torch.float32, "cpu")
    assert tokenizer.pad_token == "<eos>"
    edit(folder / "tokenizer_config.json", eos_token=None)
    assert "neither a padding nor an end token" in refused(folder).message


def _pickle_only(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _drop_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.down_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _cut(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(5000)


def _lose_a_shard(folder: Path) -> None:
    tiny_model().save_pretrained(folder, max_shard_size="40KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    next(iter(sorted(folder.glob("model-*.safetensors")))).unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "it has no model.safetensors"),
        (_pickle_only, "it has pickled weights only"),
        (_drop_a_tensor, "1 tensors of the model are in none of its files, first model.layers.1.mlp.down_proj.weight"),
        (_cut, "model.safetensors is damaged"),
        (_lose_a_shard, "weight files are missing, first model-00001-of-"),
        (lambda folder: edit(folder / "config.json", hidden_size=64), "size mismatch|mismatch|shape"),
        (lambda folder: edit(folder / "config.json", model_type="no-such-type"), "no-such-type"),
        (lambda folder: (folder / "config.json").write_text("{"), "JSON"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), ""),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "index.json cannot be read"),
    ],
)
def test_a_folder_that_is_no_good_is_refused(folder: Path, damage: Callable[[Path], object], told: str) -> None:
    damage(folder)
    message = refused(folder).message
    assert any(part in message for part in told.split("|")), message


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").code == "model-missing"


def test_code_of_the_models_own_runs_only_when_trusted(folder: Path) -> None:
    marker = folder / "was_run"
    code = (
        f"from transformers import LlamaForCausalLM\nopen({str(marker)!r}, 'w').close()\n"
        "class Own(LlamaForCausalLM):\n    pass\n"
    )
    (folder / "own.py").write_text(code)
    plain = models.identity({"path": folder})
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "own.Own"})
    model, _ = models.load({"path": folder}, torch.float32, "cpu")
    assert type(model).__name__ == "LlamaForCausalLM" and not marker.exists()
    edit(folder / "config.json", model_type="own-type", auto_map={"AutoConfig": "own.OwnConfig"})
    error = refused(folder)
    assert not marker.exists()
    assert "trust_remote_code" in error.hint
    with pytest.raises(PrerequisiteError, match="which is not run"):  # and nobody is asked
        load_part({"path": folder}, torch.float32, "cpu", lambda shape: None)
    with pytest.raises(PrerequisiteError, match="which is not run"):
        outline({"path": folder})
    assert not marker.exists()
    edit(folder / "config.json", model_type="llama", auto_map={"AutoModelForCausalLM": "own.Own"})
    model, _ = models.load({"path": folder, "trust_remote_code": True}, torch.float32, "cpu")
    assert type(model).__name__ == "Own" and marker.exists()
    assert models.identity({"path": folder, "trust_remote_code": True}) != plain


def test_a_model_that_does_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = sum(value.numel() for value in load_file(folder / "model.safetensors").values())
    assert memory.parameter_count(folder) == weights
    monkeypatch.setattr(memory, "free_memory", lambda device: 4 * weights - 1)
    error = refused(folder)
    assert (error.code, error.hint[:20]) == ("memory", "take a smaller model")
    models.load({"path": folder}, torch.bfloat16, "cpu")  # half the size does


def test_free_memory_is_told() -> None:
    free = memory.free_memory(torch.device("cpu"))
    assert free is None or free > 10_000_000
    assert memory.free_memory(torch.device("meta")) is None


def test_memory_that_runs_out_while_loading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def grow(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", grow)
    assert refused(folder).code == "memory"


def test_the_identity_of_a_folder_is_its_content(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("notes do not count")
    first = models.identity({"path": str(folder)})
    assert first.startswith("folder:")
    assert models.identity({"path": str(copy)}) == first
    state = load_file(copy / "model.safetensors")
    state["model.norm.weight"][0] += 1
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    assert models.identity({"path": str(copy)}) != first
    shutil.copy(folder / "model.safetensors", copy)
    assert models.identity({"path": str(copy)}) == first
    edit(copy / "tokenizer_config.json", padding_side="left")
    assert models.identity({"path": str(copy)}) != first


def test_identities_of_other_references() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert models.identity({"hf": "owner/name", "revision": commit}) == f"hf:owner/name@{commit}"
    trusted = models.identity({"hf": "owner/name", "revision": commit, "trust_remote_code": True})
    assert trusted == f"hf:owner/name@{commit}+code"
    with pytest.raises(PlanError, match="'main' is no commit"):
        models.identity({"hf": "owner/name", "revision": "main"})
    with pytest.raises(PlanError, match="no model reference"):
        models.identity({"hf": "owner/name"})
    with pytest.raises(PrerequisiteError):
        models.identity({"path": "no/such/folder"})
