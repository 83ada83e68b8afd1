"""A model of which only a part is read: the same bits as the whole, and no byte of the rest until it is wanted."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearn_suite import Requirements, models
from unlearn_suite.engine.adversary import Adversary
from unlearn_suite.engine.batch import Batch, Encoded, collate
from unlearn_suite.engine.needs import needed_parameters, with_watchers
from unlearn_suite.engine.replay import Replay
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.engine.views import ModelViews
from unlearn_suite.errors import PrerequisiteError
from unlearn_suite.models import memory
from unlearn_suite.models.absent import Absent
from unlearn_suite.models.tensor_file import TensorFile
from unlearn_suite.specs import Example, Train
from unlearn_suite.testing.tiny import ARCHITECTURES, save_tiny, tiny_model, tiny_tokenizer

READS = 1


def sharded(folder: Path, arch: str = "llama", size: str = "20KB", **overrides: Any) -> Path:
    tiny_model(arch, **overrides).save_pretrained(folder, max_shard_size=size)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def up_to(reads: int, *trainable: str) -> Callable[[ModelShape], Collection[str] | None]:
    return lambda shape: needed_parameters(shape, Requirements(trainable, reads=reads))


def part(
    folder: Path, reads: int = READS, dtype: torch.dtype = torch.float32, ref: Any = None
) -> tuple[Any, Absent | None]:
    model, _, absent = models.load_part(ref or {"path": str(folder)}, dtype, "cpu", up_to(reads))
    return model, absent


def batch() -> Batch:
    rows = [Encoded(Example(str(n), "x", unit=str(n)), tuple(range(4, 4 + n)), 2) for n in (9, 6)]
    return collate(rows, 0)


def hidden(model: Any, block: int) -> torch.Tensor:
    with torch.no_grad():
        return Replay(model, ModelShape.of(model)).blocks_to(batch(), stop=block)[block]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(batch().input_ids, attention_mask=batch().attention_mask).logits
        return out


def meta(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.is_meta}


def hooks(model: Any) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


def assert_whole(found: Any, expected: Any) -> None:
    """Every parameter and buffer, what the modules share, and what the model is told to do."""
    for kind in ("named_parameters", "named_buffers"):
        values = dict(getattr(expected, kind)(remove_duplicate=False))
        present = dict(getattr(found, kind)(remove_duplicate=False))
        assert present.keys() == values.keys()
        for name, value in values.items():
            assert present[name].dtype == value.dtype and torch.equal(present[name], value), name
            assert present[name].requires_grad == value.requires_grad
    assert len(list(found.parameters())) == len(list(expected.parameters()))  # tied ones are one
    assert found.config.to_dict() == expected.config.to_dict()
    assert found.config._attn_implementation == expected.config._attn_implementation
    assert found.generation_config.to_dict() == expected.generation_config.to_dict()
    assert not found.training and not hooks(found)
    assert torch.equal(logits(found), logits(expected))


CASES = [
    *((arch, {}, torch.float32) for arch in ARCHITECTURES),
    ("llama", {"tie_word_embeddings": True}, torch.float32),
    ("gemma3", {"tie_word_embeddings": False}, torch.float32),
    *((arch, {}, torch.bfloat16) for arch in ("llama", "gemma2", "gemma3", "gpt2", "phi")),
]


@pytest.mark.parametrize(("arch", "overrides", "dtype"), CASES)
def test_a_part_computes_what_the_whole_does_and_becomes_it(tmp_path, arch, overrides, dtype):
    folder = sharded(tmp_path / "m", arch, **overrides)
    whole, _ = models.load({"path": str(folder)}, dtype, "cpu")
    model, absent = part(folder, dtype=dtype)
    assert absent is not None
    shape = ModelShape.of(whole)
    outside = {n for n in shape.tensors if shape.block_of(n) is None}
    above = {n for n in shape.tensors if n not in outside and shape.block_of(n) > READS}
    above |= {n for n in outside if "norm" in n or "ln_f" in n or n.startswith("lm_head")}
    assert meta(model) == absent.names == above
    for block in range(READS + 1):
        assert torch.equal(hidden(model, block), hidden(whole, block))
    assert meta(model) == above
    absent.bring()
    assert not absent.names
    assert_whole(model, whole)


def test_what_is_run_is_brought_in_and_told(tmp_path):
    folder = sharded(tmp_path / "m", tie_word_embeddings=False)
    whole, _ = models.load({"path": str(folder)}, torch.float32, "cpu")
    model, absent = part(folder, reads=0)
    told: list[str] = []
    absent.on_demand = told.append
    assert torch.equal(hidden(model, 2), hidden(whole, 2))
    assert told == ["model.layers.1", "model.layers.2"]
    assert absent.names == {
        n for n in dict(whole.named_parameters()) if "layers.3" in n or "norm" in n.split(".")[1]
    } | {"lm_head.weight"}
    replay = Replay(model, ModelShape.of(model))
    h = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(replay.head(h), Replay(whole, ModelShape.of(whole)).head(h))
    assert told[2:] == ["lm_head"]
    assert torch.equal(logits(model), logits(whole))
    assert told[3:] == ["model.layers.3", "model.norm"] and not absent.names
    assert_whole(model, whole)


def test_parameters_by_name_and_strangers(tmp_path):
    folder = sharded(tmp_path / "m")
    model, absent = part(folder)
    name = "model.layers.3.mlp.down_proj.weight"
    before = absent.names
    absent.bring([name, "model.embed_tokens.weight", "no.such"])
    assert before - absent.names == {name} and name not in meta(model)
    assert torch.equal(model.get_parameter(name), tiny_model().get_parameter(name))


def test_what_a_stage_needs():
    shape = ModelShape.of(tiny_model(tie_word_embeddings=False))
    late = "model.layers.3.mlp.down_proj.weight"
    assert needed_parameters(shape, Requirements((), reads=3, logits=True)) is None
    nothing = needed_parameters(shape, Requirements((late,), reads=-1))
    assert nothing == {"model.embed_tokens.weight", late}
    with_head = needed_parameters(shape, Requirements((late,), reads=-1, head=True))
    assert with_head - nothing and all(shape.block_of(name) is None for name in with_head - nothing)
    for watching in ({"stop": {"retain_kl": 1}}, {"diagnostics": {"detectors": ["retain-kl"]}}):
        assert with_watchers(Requirements((), reads=0), Train(**watching)).logits
    assert not with_watchers(Requirements((), reads=0), Train(diagnostics={"detectors": ["update"]})).logits
    deepest = needed_parameters(shape, Requirements((), reads=3))
    assert set(shape.tensors) - deepest == {"model.norm.weight", "lm_head.weight"}


@pytest.mark.parametrize("tensors", ["same", "lora", "all"])
def test_an_attack_on_a_part_is_the_one_on_the_whole(tmp_path, tensors):
    folder = sharded(tmp_path / "m")
    model, absent = part(folder)

    def attacked(model: Any) -> Any:
        shape = ModelShape.of(model)
        views = ModelViews(model, shape, shape.select("mlp_out", [READS]))
        adversary = Adversary(views, torch.Generator().manual_seed(0), lambda text: None)
        texts = (batch(), batch())

        def loss(given: Batch) -> torch.Tensor:
            return given.mean(views.policy.hidden(given, [READS])[READS].square().mean(-1))

        return adversary.attack(
            lambda k: loss(texts[0]), lambda: loss(texts[1]), lr=0.1, readouts={1: 0.5, 2: 0.5}, tensors=tensors
        )

    found, expected = attacked(model), attacked(models.load({"path": str(folder)}, torch.float32, "cpu")[0])
    assert found.outer_losses == expected.outer_losses and found.displacement == expected.displacement
    assert all(torch.equal(found.gradient[name], g) for name, g in expected.gradient.items())
    assert bool(absent.names) == (tensors == "same")


# --- no byte of the rest


class Watched:
    """Every range of bytes that is read from safetensors files, whoever opens them with Python; and what
    safetensors itself is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ranges: list[tuple[str, int, int]] = []
        self.asked: list[str] = []
        plain, watched = Path.open, self

        class File(io.BufferedReader):
            def readinto(self, buffer: Any) -> int:
                watched.ranges.append((Path(self.name).name, self.tell(), len(buffer)))
                return super().readinto(buffer)

            def read(self, size: int | None = -1) -> bytes:
                start, found = self.tell(), super().read(size)
                watched.ranges.append((Path(self.name).name, start, len(found)))
                return found

        def opened(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if path.suffix == ".safetensors" and mode == "rb":
                return File(io.FileIO(path))
            return plain(path, mode, *args, **kwargs)

        monkeypatch.setattr(Path, "open", opened)
        spy = self._spy()
        for place in ("safetensors", "transformers.modeling_utils", "unlearn_suite.models.tensor_file"):
            monkeypatch.setattr(f"{place}.safe_open", spy)

    def _spy(self) -> Any:
        from safetensors import safe_open

        watched = self

        class Spy:
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                self.inner = safe_open(*args, **kwargs)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *args: Any) -> None:
                self.inner.__exit__(*args)

            def __getattr__(self, name: str) -> Any:
                if name in ("get_tensor", "get_slice"):
                    watched.asked.append(name)
                return getattr(self.inner, name)

        return Spy

    def tensors(self, folder: Path) -> set[str]:
        """Stored names of which a byte was read."""
        entries = [
            (f.path.name, n, e)
            for p in folder.glob("*.safetensors")
            for f in [TensorFile(p)]
            for n, e in f.entries.items()
        ]
        return {
            name
            for file, name, entry in entries
            for read, start, size in self.ranges
            if read == file and start < entry.start + entry.size and entry.start < start + size
        }


@pytest.mark.parametrize("size", ["20KB", "1GB"])
def test_no_byte_of_what_is_not_needed_is_read(tmp_path, monkeypatch, size):
    folder = sharded(tmp_path / "m", size=size)
    watched = Watched(monkeypatch)
    model, absent = part(folder)
    hidden(model, READS)
    ranges = list(watched.ranges)
    present = set(dict(model.named_parameters())) - absent.names
    assert watched.tensors(folder) == present
    assert not watched.asked  # nothing went through safetensors' own, mapped reader
    needed = sum(dict(model.named_parameters())[name].nbytes for name in present)
    headers = sum(length for _, start, length in ranges if start <= 8)
    assert sum(length for *_, length in ranges) - headers == needed  # and each byte once
    watched.ranges[:] = []
    absent.bring()
    assert watched.tensors(folder) == set(dict(model.named_parameters())) - present


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts a process's reads")
def test_the_system_counts_the_same_bytes(tmp_path):
    def read_so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    folder = sharded(tmp_path / "m", hidden_size=128, intermediate_size=512)
    part(folder)  # modules are imported
    start = read_so_far()
    model, absent = part(folder)
    counted = read_so_far() - start
    there = sum(p.nbytes for n, p in model.named_parameters() if n not in absent.names)
    rest = sum(p.nbytes for n, p in model.named_parameters() if n in absent.names)
    assert there <= counted <= there + rest / 4  # configuration and tokenizer are read as well
    start = read_so_far()
    absent.bring()
    assert rest <= read_so_far() - start <= rest + 10_000


def test_memory_is_asked_for_the_part_only(tmp_path, monkeypatch):
    folder = sharded(tmp_path / "m")
    values = {name: p.numel() for name, p in tiny_model().named_parameters()}
    small = up_to(READS)(ModelShape.of(tiny_model()))
    needed = 4 * sum(values[name] for name in small)
    monkeypatch.setattr(memory, "free_memory", lambda device: needed)
    model, absent = part(folder)
    assert hidden(model, READS).isfinite().all()
    with pytest.raises(PrerequisiteError, match="its weights take") as caught:
        monkeypatch.setattr(memory, "free_memory", lambda device: 4 * sum(values.values()) - needed - 1)
        absent.bring()
    assert caught.value.code == "memory" and absent.names == set(values) - small
    with pytest.raises(PrerequisiteError, match="does not fit"):
        models.load({"path": str(folder)}, torch.float32, "cpu")


# --- where the files lie, and what can only be loaded whole


def test_a_snapshot_of_the_hub_cache(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--owner--name"
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for number, file in enumerate(sorted(sharded(tmp_path / "plain").iterdir())):
        shutil.move(file, repo / "blobs" / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    ref = {"hf": "owner/name", "revision": commit}
    model, absent = part(snapshot, ref=ref)
    assert absent.names
    absent.bring()
    assert_whole(model, models.load(ref, torch.float32, "cpu")[0])


def test_old_names_in_the_files(tmp_path):
    folder = save_tiny(tmp_path / "m", "gpt2")
    state = load_file(folder / "model.safetensors")
    save_file(
        {n.removeprefix("transformer."): v for n, v in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    model, absent = part(folder)
    assert "transformer.h.3.mlp.c_proj.weight" in absent.names
    absent.bring()
    assert_whole(model, models.load({"path": str(folder)}, torch.float32, "cpu")[0])


def test_a_tied_tensor_under_its_other_name(tmp_path):
    folder = save_tiny(tmp_path / "m", tie_word_embeddings=True)
    state = load_file(folder / "model.safetensors")
    state = {"lm_head.weight": state.pop("model.embed_tokens.weight"), **state}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    model, absent = part(folder)
    assert absent is not None and "model.embed_tokens.weight" not in absent.names
    absent.bring()
    assert_whole(model, models.load({"path": str(folder)}, torch.float32, "cpu")[0])


def test_generation_settings_that_only_the_configuration_has(tmp_path):
    folder = save_tiny(tmp_path / "m")
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": [2, 7], "temperature": 0.3}))
    model, absent = part(folder)
    absent.bring()
    assert_whole(model, models.load({"path": str(folder)}, torch.float32, "cpu")[0])
    assert model.generation_config.eos_token_id == [2, 7]


def _both_copies(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def _exotic(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["model.layers.2.mlp.down_proj.weight"] = state["model.layers.2.mlp.down_proj.weight"].to(torch.float8_e5m2)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("change", [_both_copies, _exotic])
def test_files_that_are_not_one_tensor_a_parameter_are_loaded_whole(tmp_path, change):
    folder = save_tiny(tmp_path / "m", tie_word_embeddings=True)
    change(folder)
    model, absent = part(folder)
    assert absent is None
    assert_whole(model, models.load({"path": str(folder)}, torch.float32, "cpu")[0])


def test_experts_that_are_put_together_are_loaded_whole(tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=64,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(tmp_path / "m")
    tiny_tokenizer().save_pretrained(tmp_path / "m")
    model, absent = part(tmp_path / "m", reads=0)
    assert absent is None and not meta(model)
    assert_whole(model, models.load({"path": str(tmp_path / "m")}, torch.float32, "cpu")[0])


def test_a_broken_folder_is_told_as_ever(tmp_path):
    folder = save_tiny(tmp_path / "m")
    state = load_file(folder / "model.safetensors")
    del state["model.layers.3.mlp.down_proj.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PrerequisiteError, match=r"1 tensors of the model are in none of its files"):
        part(folder)


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_files_that_change_under_the_model(tmp_path, change):
    folder = sharded(tmp_path / "m")
    model, absent = part(folder)
    for file in folder.glob("*.safetensors"):
        if change == "removed":
            file.unlink()
        else:
            save_file({n: v + 1 for n, v in load_file(file).items()}, file, {"format": "pt", "and": "more"})
    before = absent.names
    with pytest.raises(PrerequisiteError, match="changed or removed") as caught:
        absent.bring()
    assert caught.value.where == str(folder) and absent.names == before == meta(model)
