"""KL and perplexity on text to retain."""

from __future__ import annotations

from ..objective import Scalars
from .detector import Alarm, Bench, Detector


class RetainKl(Detector):
    """KL(start || now) of next-token distributions."""

    alarms = {"diag_retain_kl": Alarm("predictions on kept text have changed", at_most=0.1)}  # noqa: RUF012

    def measure(self, bench: Bench) -> Scalars:
        return {"diag_retain_kl": bench.drift().kl}


class RetainPerplexity(Detector):
    """Perplexity, and its relative rise since the start."""

    alarms = {"diag_retain_ppl_rise": Alarm("kept text has become less likely", at_most=0.05)}  # noqa: RUF012

    def measure(self, bench: Bench) -> Scalars:
        found = bench.drift()
        return {"diag_retain_ppl": found.ppl, "diag_retain_ppl_rise": found.ppl_rise}
