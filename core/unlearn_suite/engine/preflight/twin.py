"""A model family: the full model without weights, and its two twins that are only a few units wide."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from ..shape import ModelShape
from .scale import Scale, Width
from .stand_in import FoldedTokenizer

_MLP = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")


class Family:
    """`full` lies on the meta device. `dtype` is the one the model is loaded in."""

    def __init__(self, full: Any, dtype: torch.dtype) -> None:
        self.full = full
        self.dtype = dtype
        self.shape = ModelShape.of(full)
        self.config = full.config
        self._set, widths = _plan(self.config.get_text_config())
        self.scale = Scale(widths)
        self.vocabulary = min(w.on(0) for w in widths if w.name == "vocabulary")
        self._folded: dict[int, FoldedTokenizer] = {}

    def twin(self, which: int) -> nn.Module:
        """Twin 0 or 1, on the CPU, with random weights; equal calls give equal weights."""
        config = copy.deepcopy(self.config)
        text = config.get_text_config()
        for name, value in self._set(which).items():
            setattr(text, name, value)
        attention = getattr(self.config, "_attn_implementation", None) or "sdpa"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: nn.Module = type(self.full)._from_config(config, attn_implementation=attention)
        return model.to(self.dtype).eval()

    def folded(self, tokenizer: Any) -> FoldedTokenizer:
        """A tokenizer for the twins; equal calls give the same one, which has its answers ready."""
        if id(tokenizer) not in self._folded:
            self._folded[id(tokenizer)] = FoldedTokenizer(tokenizer, self.vocabulary)
        return self._folded[id(tokenizer)]

    def weight_bytes(self, names: Collection[str] | None = None) -> int:
        """Bytes of the weights, or of the parameters in `names` alone; with the buffers."""
        parameters = [p for name, p in self.full.named_parameters() if names is None or name in names]
        buffers = sum(b.numel() * b.element_size() for b in self.full.buffers())
        return sum(p.numel() for p in parameters) * self.dtype.itemsize + buffers


def _plan(config: Any) -> tuple[Any, list[Width]]:
    """(settings of a twin by its number, the widths that they change)."""
    heads = int(config.num_attention_heads)
    grouped = getattr(config, "num_key_value_heads", None) is not None
    groups = int(config.num_key_value_heads) if grouped else heads
    one = groups == 1  # multi-query attention keeps its single key
    per_group = 1 if one else heads // groups
    hidden = int(config.hidden_size)
    head_dim = int(getattr(config, "head_dim", None) or hidden // heads)
    mlp = next((name for name in _MLP if hasattr(config, name)), None)
    count = Width("heads" if one else "groups", 2, 3, heads if one else groups)
    head = Width("head", 5, 7, head_dim, unit=2)
    widths = [count, head, Width("vocabulary", 23, 29, int(config.vocab_size), unit=16)]
    tied = heads * head_dim == hidden
    if not tied:
        widths.append(Width("hidden", 11, 13, hidden, unit=4))
    if mlp:
        widths.append(Width("mlp", 17, 19, int(getattr(config, mlp) or 4 * hidden), unit=4))
    by_name = {w.name: w for w in widths}

    def settings(which: int) -> Mapping[str, Any]:
        n_heads = count.on(which) * per_group
        found: dict[str, Any] = {
            "num_attention_heads": n_heads,
            "hidden_size": n_heads * head.on(which) if tied else by_name["hidden"].on(which),
            "vocab_size": by_name["vocabulary"].on(which),
        }
        if grouped:
            found["num_key_value_heads"] = 1 if one else count.on(which)
        if hasattr(config, "head_dim"):
            found["head_dim"] = head.on(which)
        if mlp:
            found[mlp] = by_name["mlp"].on(which)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            found[name] = 0
        return found | _whole_rotary(config)

    return settings, widths


def _whole_rotary(config: Any) -> dict[str, Any]:
    """A part of a small head would be an odd number of rotary dimensions; the whole is not."""
    rope = getattr(config, "rope_parameters", None)
    if isinstance(rope, Mapping) and "partial_rotary_factor" in rope:
        return {"rope_parameters": {**rope, "partial_rotary_factor": 1.0}}
    return {}
