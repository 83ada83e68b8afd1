"""Patches that fit a base and each other, and those that do not, with the tensor and the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearn_suite import models
from unlearn_suite.engine import patch
from unlearn_suite.errors import PrerequisiteError
from unlearn_suite.models.compose import BaseFiles, changes
from unlearn_suite.models.export import export_checkpoint
from unlearn_suite.models.patch_file import PatchFile
from unlearn_suite.testing.tiny import save_tiny, tiny_model, tiny_tokenizer

ONE, TWO = "model.layers.1.mlp.down_proj.weight", "model.layers.2.mlp.down_proj.weight"
ABOUT = {"ref": {}, "name": "tiny", "source": "", "licence": ""}


def train(base: Path, path: Path, by: float, *names: str) -> PatchFile:
    model, _ = models.load({"path": str(base)}, torch.float32, "cpu")
    parameters = dict(model.named_parameters())
    originals = {name: parameters[name].detach().clone() for name in names}
    with torch.no_grad():
        for name in names:
            parameters[name].add_(by)
    patch.save(path, model, originals, {"id": path.stem, "problem": "p", "arm": "a"})
    return PatchFile(path)


@pytest.fixture()
def base(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "base")


def export(base: Path, target: Path, *patches: PatchFile) -> dict[str, torch.Tensor]:
    export_checkpoint(base, patches, target, about=ABOUT)
    return dict(load_file(target / "model.safetensors"))


def refused(base: Path, *patches: PatchFile) -> PrerequisiteError:
    with pytest.raises(PrerequisiteError) as caught:
        changes(BaseFiles(base), patches)
    assert caught.value.code == "patch-base" and caught.value.hint
    return caught.value


def test_another_base_is_refused(base, tmp_path):
    made = train(base, tmp_path / "a.safetensors", 0.5, ONE, TWO)
    error = refused(save_tiny(tmp_path / "other", seed=1), made)
    assert f"belongs to another base model: {ONE} differs" in error.message and error.where == str(made.path)
    wide = save_tiny(tmp_path / "wide", intermediate_size=64)
    assert f"{ONE} is [32, 48] there and [32, 64] here" in refused(wide, made).message


def test_one_value_of_difference_is_another_base(base, tmp_path):
    made = train(base, tmp_path / "a.safetensors", 0.5, ONE, TWO)
    state = load_file(base / "model.safetensors")
    state[TWO][3, 4] += 1e-6
    save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    assert TWO in refused(base, made).message


def test_a_patch_on_the_result_of_another(base, tmp_path):
    first = train(base, tmp_path / "a.safetensors", 0.5, ONE)
    middle = export(base, tmp_path / "middle", first)
    second = train(tmp_path / "middle", tmp_path / "b.safetensors", 0.25, ONE, TWO)
    both = export(base, tmp_path / "both", first, second)
    one_by_one = export(tmp_path / "middle", tmp_path / "end", second)
    assert all(torch.equal(both[name], one_by_one[name]) for name in both)
    assert not torch.equal(both[ONE], middle[ONE])
    error = refused(base, second, first)
    assert f"{ONE} was changed by p.a.a" in error.message and error.hint == "give that patch first"
    assert f"{ONE} differs" in refused(base, second).message


def test_disjoint_tensors_compose_in_any_order(base, tmp_path):
    first = train(base, tmp_path / "a.safetensors", 0.5, ONE)
    second = train(base, tmp_path / "b.safetensors", 0.25, TWO)
    here, there = export(base, tmp_path / "x", first, second), export(base, tmp_path / "y", second, first)
    before = load_file(base / "model.safetensors")
    torch.testing.assert_close(here[ONE], before[ONE] + 0.5)
    torch.testing.assert_close(here[TWO], before[TWO] + 0.25)
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_two_patches_of_one_tensor_made_side_by_side(base, tmp_path):
    first = train(base, tmp_path / "a.safetensors", 0.5, ONE, TWO)
    second = train(base, tmp_path / "b.safetensors", 0.25, TWO)
    error = refused(base, first, second)
    assert f"{TWO} is changed by p.a.a" in error.message and "made on the base, not on that result" in error.message
    assert error.where == str(second.path)


def test_a_later_patch_of_a_third_model(base, tmp_path):
    first = train(base, tmp_path / "a.safetensors", 0.5, ONE)
    second = train(save_tiny(tmp_path / "other", seed=1), tmp_path / "b.safetensors", 0.25, ONE)
    assert f"{ONE} was another tensor when this patch was made" in refused(base, first, second).message


def test_a_chain_over_an_export_that_was_rounded(tmp_path):
    base = tmp_path / "base"
    tiny_model().to(torch.bfloat16).save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    first = train(base, tmp_path / "a.safetensors", 0.123456, ONE)
    export(base, tmp_path / "middle", first)
    second = train(tmp_path / "middle", tmp_path / "b.safetensors", 0.1, ONE)
    both, end = export(base, tmp_path / "both", first, second), export(tmp_path / "middle", tmp_path / "end", second)
    assert both[ONE].dtype == torch.bfloat16 and torch.equal(both[ONE], end[ONE])


def _rename(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name.replace("down_proj", "w2"): value for name, value in state.items()}


def test_unknown_and_ambiguous_names(base, tmp_path):
    made = train(base, tmp_path / "a.safetensors", 0.5, ONE)
    state = load_file(base / "model.safetensors")
    save_file(_rename(state), base / "model.safetensors")
    assert f"{ONE} is not among the" in refused(base, made).message
    short = ONE.removeprefix("model.")
    save_file({**_rename(state), short: state[ONE].clone(), f"x.{ONE}": state[ONE].clone()}, base / "model.safetensors")
    assert "several could be it" in refused(base, made).message


def test_a_tensor_in_two_shards_is_a_damaged_base(tmp_path):
    base = tmp_path / "base"
    tiny_model().save_pretrained(base, max_shard_size="40KB")
    first, second, *_ = sorted(base.glob("*.safetensors"))
    save_file({**load_file(second), **load_file(first)}, second)
    with pytest.raises(PrerequisiteError, match=f"and in {second.name}"):
        BaseFiles(base)


def test_files_that_are_no_patch(base, tmp_path):
    with pytest.raises(PrerequisiteError, match="not an unlearning patch: its format is"):
        PatchFile(_with_format(tmp_path / "x.safetensors", "something-else"))
    with pytest.raises(PrerequisiteError, match="its format is 'pt'"):
        PatchFile(base / "model.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(PrerequisiteError, match="it names no format"):
        PatchFile(tmp_path / "plain.safetensors")
    with pytest.raises(PrerequisiteError, match="cannot be read"):
        PatchFile(tmp_path / "none.safetensors")
    made = train(base, tmp_path / "a.safetensors", 0.5, ONE)
    made.path.write_bytes(made.path.read_bytes()[:-8])
    with pytest.raises(PrerequisiteError, match="cannot be read"):
        PatchFile(made.path)


def _with_format(path: Path, name: str) -> Path:
    save_file({"x": torch.zeros(1)}, path, metadata={"format": name})
    return path
