"""|h| / |h_ref| above the block that is read: what an inflated activation does to the rest of the model."""

from __future__ import annotations

import math

from ..batch import Batch
from ..losses import norm_ratio
from ..objective import Scalars
from .detector import Alarm, Bench, Detector, masked


class NormsAbove(Detector):
    """Of the later blocks' mean ratios, the one that is farthest from 1. Nothing where the last block is read."""

    alarms = {  # noqa: RUF012
        "diag_norm_forget_above": Alarm("later activations of forgotten text are inflated", at_most=5.0),
        "diag_norm_retain_above": Alarm("later activations of kept text changed size", at_least=0.95, at_most=1.05),
    }

    def measure(self, bench: Bench) -> Scalars:
        found = {}
        for name, batches in (("forget", bench.forget), ("retain", bench.retain)):
            ratios = _means(bench, batches)
            if ratios:
                found[f"diag_norm_{name}_above"] = max(ratios, key=lambda ratio: abs(math.log(max(ratio, 1e-9))))
        return found


def _means(bench: Bench, batches: list[Batch]) -> list[float]:
    """The mean ratio over content tokens, of each later block."""
    later = range(bench.block + 1, bench.ctx.shape.n_blocks)
    read = [[view.hidden(b, later) for view in (bench.ctx.policy, bench.ctx.reference)] for b in batches]
    return [float(masked([norm_ratio(h[k], ref[k]) for h, ref in read], batches).mean()) for k in later]
