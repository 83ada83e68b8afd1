"""The model's parts as evaluation needs them: hidden states, cache, and the head at chosen positions."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..engine.replay import Replay
from ..engine.shape import ModelShape

HEAD_ROWS = 128
"""positions per LM-head call: bounds the [rows, V] float32 logits, which on a CPU should fit its last cache"""


LOWEST = -1e4
"""log-probability of a token that a model rules out (its logit is -inf), where moments are taken: p log p is 0"""


@dataclass
class HeadScores:
    """Of each target: its log-probability and whether it is the argmax; if asked for, the mean and the variance
    of log p(v) over v ~ p at its position."""

    logprobs: list[float] = field(default_factory=list)
    greedy: list[bool] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    variances: list[float] = field(default_factory=list)


class Forward:
    """The model's parts: hidden states with or without a cache, and the LM head at chosen positions."""

    def __init__(self, hf: Any, device: torch.device) -> None:
        self.device = device
        self.replay = Replay(hf, ModelShape.of(hf))
        parameters = inspect.signature(self.replay.base.forward).parameters
        self.takes_positions = "position_ids" in parameters
        self.cache_name = "cache" if "cache" in parameters else "past_key_values"  # newer and older transformers

    def hidden(
        self,
        ids_bt: Tensor,
        mask_bt: Tensor | None,
        positions_bt: Tensor | None = None,
        cache: Any = None,
        *,
        keep: bool = False,
    ) -> tuple[Tensor, Any]:
        """The LM head's input [B, T, D], and the key-value cache (None unless `keep` or `cache`).

        `mask_bt` covers cached tokens too; None means that nothing is padded.
        """
        kwargs: dict[str, Any] = {"input_ids": ids_bt, "use_cache": keep or cache is not None}
        if mask_bt is not None:
            kwargs["attention_mask"] = mask_bt
        if positions_bt is not None and self.takes_positions:
            kwargs["position_ids"] = positions_bt
        if cache is not None:
            kwargs[self.cache_name] = cache
        out = self.replay.base(**kwargs)
        return out.last_hidden_state, getattr(out, self.cache_name, None)

    def logits(self, h_nd: Tensor) -> Tensor:
        """Logits [N, V] in float32."""
        return self.replay.head(h_nd[None])[0].float()

    def score(self, h_nd: Tensor, targets: Sequence[int], moments: bool = False) -> HeadScores:
        """Scores of each target; never more than `HEAD_ROWS` rows of logits at a time."""
        if not targets:
            return HeadScores()
        targets_n = torch.tensor(targets, device=h_nd.device)
        starts = range(0, len(targets), HEAD_ROWS)
        parts = [self._scored(h_nd[at : at + HEAD_ROWS], targets_n[at : at + HEAD_ROWS], moments) for at in starts]
        logprobs, greedy, *others = (torch.cat(column).tolist() for column in zip(*parts, strict=True))
        return HeadScores(logprobs, greedy, *others)

    def _scored(self, h_nd: Tensor, targets_n: Tensor, moments: bool) -> tuple[Tensor, ...]:
        logits_nv = self.logits(h_nd)
        log_z_n = logits_nv.logsumexp(dim=1)
        chosen_n = logits_nv.gather(1, targets_n[:, None])[:, 0] - log_z_n
        greedy_n = logits_nv.max(dim=1).indices == targets_n  # argmax, which is slower here
        if not moments:
            return chosen_n, greedy_n
        return chosen_n, greedy_n, *moments_of((logits_nv - log_z_n[:, None]).clamp_(min=LOWEST))


def moments_of(logp_nv: Tensor) -> tuple[Tensor, Tensor]:
    """[N], [N]: mean and variance of log p(v) over v ~ p, from log p. Centred, so that nothing cancels."""
    p_nv = logp_nv.exp()
    mean_n = (p_nv * logp_nv).sum(dim=1)
    return mean_n, (p_nv * (logp_nv - mean_n[:, None]).square_()).sum(dim=1)


def shareable(cache: Any) -> bool:
    """Whether rows of a cache can be picked and repeated: plain or sliding-window keys and values only."""
    layers = getattr(cache, "layers", None) or ()
    names = {"DynamicLayer", "DynamicSlidingWindowLayer"}
    return len(layers) > 0 and all(type(layer).__name__ in names for layer in layers)


def pad(rows: Sequence[Sequence[int]], device: torch.device, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, both [B, T] int64, padded with token 0 (which the mask hides)."""
    width = max(map(len, rows))
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, where] = torch.tensor(row)
        mask[index, where] = 1
    return ids.to(device), mask.to(device)
