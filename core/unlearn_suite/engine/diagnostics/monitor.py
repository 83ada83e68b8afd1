"""Runs a stage's detectors: when they are due, what they warn of, and what the page shows of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ...specs import DetectorName, Diagnostics
from ..context import StageContext
from ..objective import Scalars
from .detector import Alarm, Bench, Detector
from .forget_word import ForgetWord
from .junk_direction import JunkDirection
from .metrics import Metrics, OwnMetrics
from .norm_ratio import NormRatio
from .norms_above import NormsAbove
from .own_output import OwnOutput
from .probe import Probe
from .quantisation import Quantisation
from .retain_drift import RetainKl, RetainPerplexity
from .single_direction import SingleDirection
from .update import Update

DETECTORS: Mapping[DetectorName, type[Detector]] = {
    "norm-ratio": NormRatio,
    "single-direction": SingleDirection,
    "retain-kl": RetainKl,
    "retain-perplexity": RetainPerplexity,
    "update": Update,
    "norms-above": NormsAbove,
    "junk-direction": JunkDirection,
    "forget-word": ForgetWord,
    "own-output": OwnOutput,
    "quantisation": Quantisation,
    "probe": Probe,
}


class Monitor:
    """Reads only, with text of its own and none of the stage's randomness: without it the weights are the same bits."""

    def __init__(self, ctx: StageContext, options: Diagnostics, block: int, metrics: Metrics | None = None) -> None:
        self._ctx = ctx
        self._bench = Bench(ctx, options, block)
        self._detectors: list[Detector] = [DETECTORS[name]() for name in dict.fromkeys(options.detectors)]
        if options.metrics:
            self._detectors.append(OwnMetrics(metrics, list(dict.fromkeys(options.metrics))))
        self._worst: dict[str, list[float]] = {}
        self._last: dict[str, float] = {}
        for detector in self._detectors:
            detector.start(self._bench)
        ctx.views.clear()

    def before(self, step: int) -> None:
        for detector in self._due(step):
            detector.before_step(self._bench)

    def after(self, step: int) -> Scalars:
        """The readings after step `step` (from 0); {} when none is due."""
        due = self._due(step)
        return self._read((d.measure for d in due), step) if due else {}

    def close(self) -> Scalars:
        """What is measured once, at the end; and the table of all of it for the page."""
        steps = self._ctx.train.steps
        reads = [d.close for d in self._detectors]
        if not steps:
            reads += [d.measure for d in self._detectors]
        found = self._read(reads, steps)
        self._show()
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"worst": {name: list(pair) for name, pair in self._worst.items()}, "last": dict(self._last)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._worst = {name: list(pair) for name, pair in state["worst"].items()}
        self._last = dict(state["last"])

    def _due(self, step: int) -> list[Detector]:
        return [d for d in self._detectors if d.is_due(self._bench, step + 1)]

    @torch.no_grad()
    def _read(self, reads: Iterable[Any], step: int) -> Scalars:
        found: Scalars = {}
        self._bench.changed()
        for read in reads:
            found |= read(self._bench)
            self._ctx.views.clear()
        for name, value in found.items():
            self._note(name, value, step)
        return found

    def _note(self, name: str, value: float, step: int) -> None:
        self._last[name] = value
        alarm = self._alarms().get(name)
        if alarm is None:
            return
        known = self._worst.get(name)
        if alarm.fires(value) and not (known and alarm.fires(known[0])):
            where = f"step {step}" if step < self._ctx.train.steps else "the end"
            self._ctx.services.warn(f"{alarm.means}: {name} is {value:.3g} at {where} (alarm {alarm.level})")
        if known is None or alarm.excess(value) > alarm.excess(known[0]):
            self._worst[name] = [value, float(step)]

    def _alarms(self) -> dict[str, Alarm]:
        return {name: alarm for d in self._detectors for name, alarm in d.alarms.items()}

    def _show(self) -> None:
        rows: list[list[float | int | str | None]] = []
        alarms = self._alarms()
        for name, value in self._last.items():
            alarm = alarms.get(name)
            if alarm is None:
                rows.append([name, value, None, None, None, ""])
                continue
            worst, step = self._worst[name]
            state = f"ALARM: {alarm.means}" if alarm.fires(worst) else "quiet"
            rows.append([name, value, worst, int(step), alarm.level, state])
        columns = ["reading", "last", "worst", "at step", "alarm level", ""]
        options = self._bench.options
        often = f" (what is written or scored: every {options.sample_every})" if options.sample_every else ""
        note = f"Measured every {options.every} steps{often} on fixed text."
        counted = "Steps count from 0; the end counts as one more."
        self._ctx.report.table("Failure detectors", columns, rows, f"{note} {counted}")
