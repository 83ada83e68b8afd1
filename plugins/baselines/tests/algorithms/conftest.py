"""The tiny model in float64, read row by row, and text that makes a batch whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_suite.engine.batch import encode
from unlearn_suite.engine.context import StageContext
from unlearn_suite.specs import Example
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

LENGTH = 160
WHOLE = {"batch": 8, "length": LENGTH, "steps": 1, "clip": None}
FORGET, RETAIN = " was tall and old", " fell on the hill"


def texts(forget: list[str], retain: list[str], prompt: str = "the king") -> dict[str, list[Example]]:
    """Eight examples a role; the odd ones have a prompt, units differ."""
    return {
        role: [
            Example(f"{role}{i}", text, prompt if i % 2 else "", group="g", unit=f"{i}") for i, text in enumerate(given)
        ]
        for role, given in (("forget", forget), ("retain", retain))
    }


VARIED = texts([f"{FORGET} {'x' * i}" for i in range(8)], [f"{RETAIN} {'y' * (7 - i)}" for i in range(8)])
ALIKE = {
    role: [Example(f"{role}{i}", text, "the king", group="g", unit=str(i)) for i in range(8)]
    for role, text in (("forget", FORGET), ("retain", RETAIN))
}


class Plain:
    """The tiny model in float64, and what is read from it one row at a time.

    A stage with `WHOLE` has batches that hold every example of VARIED, so that their order does not matter; of ALIKE,
    the same text eight times, any batch is like any other.
    """

    VARIED, ALIKE, WHOLE = VARIED, ALIKE, WHOLE

    def __init__(self, given: dict[str, list[Example]], arch: str = "llama") -> None:
        self.model = tiny_model(arch).double()
        self.weights = dict(self.model.named_parameters())
        self.rows = {role: self.encoded(rows) for role, rows in given.items()}

    def encoded(self, rows: list[Example]) -> list[tuple[Tensor, int]]:
        return [(torch.tensor([e.input_ids]), max(e.response_start, 1)) for e in encode(tiny_tokenizer(), rows, LENGTH)]

    def mean(self, rows: list[tuple[Tensor, int]], of: Any) -> Tensor:
        """Mean over all response tokens of of(log p [V] that predicts it, the token)."""
        terms = []
        for ids, start in rows:
            log_p = self.model(ids).logits[0].log_softmax(-1)
            terms += [of(log_p[t - 1], int(ids[0, t])) for t in range(start, ids.shape[1])]
        return torch.stack(terms).mean()

    def nll(self, rows: list[tuple[Tensor, int]]) -> Tensor:
        return self.mean(rows, lambda log_p, y: -log_p[y])

    def neg_entropy(self, rows: list[tuple[Tensor, int]]) -> Tensor:
        return self.mean(rows, lambda log_p, y: (log_p.exp() * log_p).sum())

    def hidden(self, ids: Tensor) -> list[Tensor]:
        """Outputs [T, D] of the blocks, the last one before the final norm."""
        found: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda m, i, out: found.append(out[0] if isinstance(out, tuple) else out))
            for block in self.model.model.layers
        ]
        self.model(ids)
        for hook in hooks:
            hook.remove()
        return [h[0] if h.ndim == 3 else h for h in found]

    def gradient(self, loss: Tensor, names: list[str]) -> dict[str, Tensor]:
        found = torch.autograd.grad(loss, [self.weights[n] for n in names], allow_unused=True)
        return {n: torch.zeros_like(self.weights[n]) if g is None else g for n, g in zip(names, found, strict=True)}

    @torch.no_grad()
    def move(self, direction: dict[str, Tensor], rate: float) -> None:
        for name, d in direction.items():
            self.weights[name].sub_(d, alpha=rate)


@pytest.fixture
def plain() -> type[Plain]:
    return Plain


@pytest.fixture
def gradients(monkeypatch):
    """The gradients that optimizer steps were given: [{tensor: gradient}]."""
    seen: list[dict[str, Tensor]] = []
    update = StageContext.update

    def watched(self: StageContext) -> Any:
        seen.append({n: p.grad.detach().clone() for n, p in self.trainable.items() if p.grad is not None})
        return update(self)

    monkeypatch.setattr(StageContext, "update", watched)
    return seen
