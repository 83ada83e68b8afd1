"""Is what was forgotten back when one direction is taken out of the activations? Then it was hidden, not removed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..batch import Batch
from ..objective import Scalars
from ..views import View
from .detector import Alarm, Bench, Detector

LOST = 0.1
"""nats per token: less is nothing lost that could come back"""


class JunkDirection(Detector):
    """Takes d = mean(h - h_ref) of text to forget out at the block that is read (the part along d is set to its mean in
    the first model), and reads how likely that text is then:

        recovery = (log p_ablated - log p) / (log p_ref - log p)
    """

    alarms = {  # noqa: RUF012
        "diag_junk_recovery": Alarm("ablating one direction brings back what was forgotten", at_most=0.5)
    }

    def __init__(self) -> None:
        self._start: tuple[float, Tensor] | None = None
        """what the first model makes of the text: it reads it once"""

    def measure(self, bench: Bench) -> Scalars:
        ctx = bench.ctx
        if self._start is None:
            self._start = _nll(bench, ctx.reference), _mean(bench, ctx.reference)
        start, before = self._start
        nll = _nll(bench, ctx.policy)
        lost = nll - start
        if lost <= LOST:
            return {"diag_forget_nll_rise": lost, "diag_junk_recovery": 0.0}
        now = _mean(bench, ctx.policy)
        d = functional.normalize(now - before, dim=0)
        level = before @ d

        def ablate(h: Tensor) -> Tensor:
            return h - ((h.float() @ d - level)[..., None] * d).to(h.dtype)

        edited = ctx.edited({bench.block: ablate})
        found = nll - _nll(bench, edited)
        edited.clear()
        return {"diag_forget_nll_rise": lost, "diag_junk_recovery": found / lost}


def _nll(bench: Bench, view: View) -> float:
    """Nats per content token of the text to forget."""
    total = sum(float(view.token_logprobs(b)[b.mask("content")].double().sum()) for b in bench.forget)
    return -total / max(sum(int(b.mask("content").sum()) for b in bench.forget), 1)


def _mean(bench: Bench, view: View) -> Tensor:
    """[D] float32: mean activation over content tokens of the text to forget."""
    return torch.cat([_rows(view, b, bench.block) for b in bench.forget]).mean(0)


def _rows(view: View, batch: Batch, block: int) -> Tensor:
    return view.hidden(batch, [block])[block][batch.mask("content")].float()
