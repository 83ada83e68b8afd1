"""Logits and activations given by hand instead of a model, so that a loss is tested against its formula alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unlearn_suite.engine.batch import Batch, Encoded, collate
from unlearn_suite.engine.losses import label_logprobs
from unlearn_suite.specs import Example

VOCAB, PAD_AND_EOS, BLOCKS, WIDTH = 120, 2, 4, 6
ROWS = {
    # ids and where the answer begins; rows end with eos, which is also what pads
    "forget": [([5, 9, 7, 11, 2], 2), ([6, 4, 2], 1), ([8, 3, 10, 2, 7, 6, 2], 0)],
    "retain": [([4, 4, 9, 2], 2), ([10, 11, 5, 6, 3, 2], 3), ([7, 2], 0)],
    "alternate": [([5, 9, 3, 2], 2), ([6, 10, 10, 8, 2], 1), ([8, 3, 10, 2, 4, 2], 3)],
}


def wave(*shape: int, phase: float, scale: float = 2.0) -> torch.Tensor:
    """Numbers that need no random generator: float64 [*shape]."""
    count = 1
    for n in shape:
        count *= n
    k = torch.arange(1, count + 1, dtype=torch.float64)
    return (scale * torch.sin(phase + 0.7 * k) + 0.5 * torch.cos(1.3 * k + phase * k / count)).reshape(shape)


def make_batch(role: str) -> Batch:
    rows = [
        Encoded(Example(f"{role}-{i}", "x", group=f"g{i % 2}"), tuple(ids), n) for i, (ids, n) in enumerate(ROWS[role])
    ]
    return collate(rows, PAD_AND_EOS)


class GivenView:
    """Answers with stored tensors: logits [B, T, V] and hidden [blocks, B, T, D] by role."""

    def __init__(self, logits: dict[str, torch.Tensor], hidden: dict[str, torch.Tensor]) -> None:
        self.by_role, self.hidden_by_role = logits, hidden

    def rows(self, batch: Batch, mask: torch.Tensor) -> torch.Tensor:
        logits = self.by_role[batch.examples[0].id.split("-")[0]]
        return logits[:, : mask.shape[1] - 1][mask[:, 1:]]

    def hidden(self, batch: Batch, blocks: Any) -> dict[int, torch.Tensor]:
        stored = self.hidden_by_role[batch.examples[0].id.split("-")[0]]
        return {block: stored[block] for block in blocks}

    def token_logprobs(self, batch: Batch, over: Any = "content") -> torch.Tensor:
        return self.per_token(batch, label_logprobs, over)

    def per_token(
        self, batch: Batch, of: Any, over: Any = "content", against: Any = None, given: Any = ()
    ) -> torch.Tensor:
        mask = batch.mask(over)
        views = [self] if against is None else [self, against]
        first, *others = (view.rows(batch, mask) for view in views)
        labels = batch.input_ids[:, 1:][mask[:, 1:]]
        out = torch.zeros(mask.shape)
        constants = [g[:, 1:][mask[:, 1:]] for g in given]
        return out.masked_scatter(mask, of(first, labels, *others, *constants).float())


@pytest.fixture
def toy() -> Any:
    """`toy(dtype)`: batches, leaf tensors by name, and a context whose views give them back."""

    def make(dtype: torch.dtype = torch.float32) -> SimpleNamespace:
        batches = {role: make_batch(role) for role in ROWS}
        shapes = {role: b.input_ids.shape for role, b in batches.items()}
        phases = {role: float(i) for i, role in enumerate(ROWS)}
        logits = {r: wave(*shapes[r], VOCAB, phase=phases[r]).to(dtype).requires_grad_() for r in ROWS}
        base = {r: wave(*shapes[r], VOCAB, phase=phases[r] + 0.3).to(dtype) for r in ROWS}
        h = {r: wave(BLOCKS, *shapes[r], WIDTH, phase=phases[r] + 0.1).to(dtype).requires_grad_() for r in ROWS}
        h0 = {r: wave(BLOCKS, *shapes[r], WIDTH, phase=phases[r] + 0.5).to(dtype) for r in ROWS}
        ctx = SimpleNamespace(
            policy=GivenView(logits, h),
            reference=GivenView(base, h0),
            step_index=3,
            train=SimpleNamespace(steps=10, batch=3),
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
            shape=SimpleNamespace(n_blocks=BLOCKS, hidden_size=WIDTH),
        )
        return SimpleNamespace(batches=batches, logits=logits, base=base, hidden=h, base_hidden=h0, ctx=ctx, rows=ROWS)

    return make
