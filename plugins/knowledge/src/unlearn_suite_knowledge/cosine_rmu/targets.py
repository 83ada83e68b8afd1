"""Which direction each token of a forget batch is turned to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from unlearn_suite import Batch, StageContext

from . import directions
from .config import CosineRmuConfig

SETUP_BATCHES = 8


class Targets(Protocol):
    """`__call__`: unit vectors for a batch, [B, 1, D] or [B, T, D]."""

    def __call__(self, batch: Batch) -> Tensor: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def make_targets(ctx: StageContext, config: CosineRmuConfig, block: int) -> Targets:
    """The targets of a stage, from the base model's activations at `block` or from the generator alone."""
    if config.direction in ("token_hash", "per_doc"):
        seed = int(torch.randint(2**62, (), generator=ctx.generator))
        return HashTargets(ctx, seed, by_token=config.direction == "token_hash")
    return TopicTargets(ctx, config.direction, block)


class TopicTargets:
    """One direction for each `group` of the forget data."""

    def __init__(self, ctx: StageContext, kind: str, block: int) -> None:
        self._device = ctx.device
        self.directions: dict[str, Tensor] = {}
        h_retain = _activations(ctx, "retain", None, block)
        for topic in sorted({e.example.group for e in ctx.roles["forget"].encoded}):
            h_forget = _activations(ctx, "forget", topic, block)
            u = directions.draw(kind, ctx.generator, h_forget, h_retain, list(self.directions.values()))
            self.directions[topic] = u
        self.directions = {topic: u.to(ctx.device) for topic, u in self.directions.items()}

    def __call__(self, batch: Batch) -> Tensor:
        return torch.stack([self.directions[e.group] for e in batch.examples])[:, None]

    def save(self, path: Path) -> None:
        """One tensor for each topic; "forget" is the topic without a name."""
        from safetensors.torch import save_file

        save_file({topic or "forget": u.cpu().contiguous() for topic, u in self.directions.items()}, path)

    def state_dict(self) -> dict[str, Any]:
        return {"directions": {topic: u.cpu() for topic, u in self.directions.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.directions = {topic: u.to(self._device) for topic, u in state["directions"].items()}


class HashTargets:
    """A Gaussian direction for each token id, or for each text (its `unit`), a function of seed and name.

    Rows are drawn when a name first occurs, so there is no [V, D] table.
    """

    def __init__(self, ctx: StageContext, seed: int, by_token: bool) -> None:
        self._size, self._device = ctx.shape.hidden_size, ctx.device
        self.seed = seed
        self._by_token = by_token
        self._rows: dict[str, Tensor] = {}

    def __call__(self, batch: Batch) -> Tensor:
        if not self._by_token:
            return torch.stack([self.row(e.unit or e.id) for e in batch.examples])[:, None]
        ids, place = batch.input_ids.unique(return_inverse=True)
        return torch.stack([self.row(str(i)) for i in ids.tolist()])[place]

    def row(self, name: str) -> Tensor:
        """[D], unit length."""
        if name not in self._rows:
            digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            u = torch.randn(self._size, generator=generator)
            self._rows[name] = (u / u.norm()).to(self._device)
        return self._rows[name]

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seed = int(state["seed"])
        self._rows.clear()


def _activations(ctx: StageContext, role: str, topic: str | None, block: int) -> Tensor:
    """Base activations [N, D] of content tokens of up to `SETUP_BATCHES` batches."""
    data = ctx.roles[role]
    if topic is not None:
        data = ctx.encode(role, [e.example for e in data.encoded if e.example.group == topic])
    rows = []
    for step in range(SETUP_BATCHES):
        batch = data.batch(step, ctx.train.batch).to(ctx.device)
        h = ctx.reference.hidden(batch, [block])[block]
        rows.append(h[batch.mask("content")].cpu())
    return torch.cat(rows)
