"""What scoring a model takes: FLOPs of all passes, and the memory of the largest."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...engine.preflight import Family, Measured, Recorder, play
from ...evaluate.forward import HEAD_ROWS, Forward
from ...evaluate.generate import choose
from .counting import Asked, CountingForward

_LENGTHS = (32, 64)
"""tokens of two passes that tell what one more token costs, and what it costs to look at it"""


@dataclass(frozen=True)
class ScoringEstimate:
    """`peak_bytes`: what torch has allocated at most, weights included; None when nothing runs."""

    peak_bytes: int | None
    flops: int


def estimate_passes(family: Family, forward: CountingForward) -> ScoringEstimate:
    """Of everything that was asked of `forward`."""
    if not forward.passes:
        return ScoringEstimate(None, 0)
    largest = max(forward.passes, key=lambda p: p.rows * p.tokens)
    longest = max((p.rows * (p.past + p.tokens) for p in forward.passes if p.kept), default=0)
    traced = _trace(family, largest)
    short, long = (traced.flops[f"{n} tokens"] / n for n in _LENGTHS)
    attention = (long - short) / (_LENGTHS[1] - _LENGTHS[0])
    linear = short - _LENGTHS[0] * attention
    flops = sum(p.rows * p.tokens * (linear + attention * (p.past + p.tokens)) for p in forward.passes)
    peak = traced.peak["pass"] + longest * _cache_bytes(family)
    return ScoringEstimate(
        round(family.weight_bytes() + peak), round(flops + forward.head_rows * traced.flops.get("head", 0.0))
    )


def _cache_bytes(family: Family) -> float:
    """Keys and values of one token in all blocks."""
    config = family.config.get_text_config()
    heads = int(config.num_attention_heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 2.0 * groups * width * family.shape.n_blocks * family.dtype.itemsize


def _trace(family: Family, asked: Asked) -> Measured:
    """On the twins: one pass and the reading of its logits; one row of each of two lengths; one row of the LM head."""
    tapes = []
    for which in (0, 1):
        forward = Forward(family.twin(which), torch.device("cpu"))
        recorder = Recorder()
        with torch.no_grad(), recorder:
            for length in _LENGTHS:
                with recorder.phase(f"{length} tokens"):
                    h_btd, _ = forward.hidden(torch.zeros(1, length, dtype=torch.long), None)
            with recorder.phase("head"):
                forward.logits(h_btd[0, :1])
            with recorder.phase("pass"):
                _largest_pass(forward, asked)
        tapes.append(recorder.tape)
    return play(tapes, family.scale)


def _largest_pass(forward: Forward, asked: Asked) -> None:
    ids = torch.zeros(asked.rows, asked.tokens, dtype=torch.long)
    h_btd, _ = forward.hidden(ids, torch.ones_like(ids))
    h_nd = h_btd.flatten(0, 1)[:HEAD_ROWS]
    forward.score(h_nd, [0] * len(h_nd))
    if asked.kept:
        choose(forward.logits(h_btd[:, -1]), torch.zeros(asked.rows, dtype=torch.float64), 1.0, 1.0)
