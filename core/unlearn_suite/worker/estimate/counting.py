"""Metrics run on a model that computes nothing: only the forward passes they ask for are noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...evaluate.forward import HeadScores
from ...evaluate.model import EvalModel

_WORDS = 8
"""width of the logits that are made up"""


@dataclass(frozen=True)
class Asked:
    """One forward pass: `rows` x `tokens` after `past` tokens in the cache, which grows if `kept`."""

    rows: int
    tokens: int
    past: int
    kept: bool


class DynamicLayer:
    """By this name `evaluate` knows a cache whose rows can be picked."""


class _Cache:
    def __init__(self, length: int) -> None:
        self.length = length
        self.layers = (DynamicLayer(),)

    def batch_select_indices(self, rows: Tensor) -> None:
        pass


class CountingForward:
    """`evaluate.forward.Forward` without a model."""

    def __init__(self, takes_positions: bool) -> None:
        self.device = torch.device("cpu")
        self.takes_positions = takes_positions
        self.passes: list[Asked] = []
        self.head_rows = 0

    def hidden(
        self, ids_bt: Tensor, mask_bt: Any, positions_bt: Any = None, cache: Any = None, *, keep: bool = False
    ) -> tuple[Tensor, Any]:
        rows, tokens = ids_bt.shape
        past = cache.length if cache is not None else 0
        kept = keep or cache is not None
        self.passes.append(Asked(rows, tokens, past, kept))
        return torch.zeros(rows, tokens, 1), _Cache(past + tokens) if kept else None

    def logits(self, h_nd: Tensor) -> Tensor:
        self.head_rows += len(h_nd)
        return torch.zeros(len(h_nd), _WORDS)

    def score(self, h_nd: Tensor, targets: Sequence[int], moments: bool = False) -> HeadScores:
        self.head_rows += (count := len(targets))
        many = count if moments else 0
        return HeadScores([-1.0] * count, [True] * count, [-1.0] * many, [1.0] * many)


class CountingModel(EvalModel):
    """Encodes and batches as the real one does; `forward` holds what was asked for."""

    def __init__(self, outline: Any, tokenizer: Any, **options: Any) -> None:
        super().__init__(outline, tokenizer, device="cpu", **options)
        self.forward = CountingForward(self._forward.takes_positions)
        self._forward: Any = self.forward

    def _eos_ids(self) -> frozenset[int]:
        return frozenset()
