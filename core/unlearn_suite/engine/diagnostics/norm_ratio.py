"""|h| / |h_ref| at the deepest block that is read: blow-up and collapse of norms."""

from __future__ import annotations

from torch import Tensor

from ..batch import Batch
from ..losses import norm_ratio
from ..objective import Scalars
from .detector import Alarm, Bench, Detector, masked


class NormRatio(Detector):
    """Mean and smallest ratio over tokens, on text to forget and to retain."""

    alarms = {  # noqa: RUF012
        "diag_norm_forget_mean": Alarm("activations of forgotten text are inflated", at_most=5.0),
        "diag_norm_forget_min": Alarm("activations of forgotten text have shrunk", at_least=0.5),
        "diag_norm_retain_mean": Alarm("activations of kept text changed size", at_least=0.95, at_most=1.05),
        "diag_norm_retain_min": Alarm("activations of some kept tokens have shrunk", at_least=0.5),
    }

    def measure(self, bench: Bench) -> Scalars:
        found: Scalars = {}
        for name, batches in (("forget", bench.forget), ("retain", bench.retain)):
            ratios = masked([_ratio(bench, b) for b in batches], batches)
            found[f"diag_norm_{name}_mean"] = float(ratios.mean())
            found[f"diag_norm_{name}_min"] = float(ratios.min())
        return found


def _ratio(bench: Bench, batch: Batch) -> Tensor:
    """[B, T]"""
    h, ref = (view.hidden(batch, [bench.block])[bench.block] for view in (bench.ctx.policy, bench.ctx.reference))
    return norm_ratio(h, ref)
