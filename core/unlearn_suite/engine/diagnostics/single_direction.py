"""Do all texts to forget end up with the same activation? Mean cosine between pairs of pooled activations."""

from __future__ import annotations

import torch
from torch.nn import functional

from ..objective import Scalars
from ..views import View
from .detector import Alarm, Bench, Detector, pooled


class SingleDirection(Detector):
    """One junk direction is undone by ablating it. Pooled activations of a whole model may be close to one another by
    nature, so what is alarming is the way gone from there to all equal."""

    alarms = {  # noqa: RUF012
        "diag_cos_forget_gained": Alarm("texts to forget share one activation", at_most=0.8)
    }

    def measure(self, bench: Bench) -> Scalars:
        now, before = (_likeness(bench, view) for view in (bench.ctx.policy, bench.ctx.reference))
        gained = (now - before) / max(1.0 - before, 1e-6)
        return {"diag_cos_forget": now, "diag_cos_forget_gained": gained}


def _likeness(bench: Bench, view: View) -> float:
    """Mean cosine over all pairs of texts."""
    rows = [pooled(view.hidden(b, [bench.block])[bench.block], b) for b in bench.forget]
    x = functional.normalize(torch.cat(rows), dim=1)
    n = len(x)
    return float(((x @ x.T).sum() - n) / (n * (n - 1))) if n > 1 else 0.0
