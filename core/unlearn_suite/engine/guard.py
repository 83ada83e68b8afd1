"""The collapse guard: a stage ends when kept text suffers, with the weights of the last step that was good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..specs import Example, Stop
from .context import StageContext
from .diagnostics.detector import ROWS
from .diagnostics.drift import Drift, Yardstick
from .objective import Scalars
from .shards import placed_like


class Guard:
    """Measures every few steps on text that is not trained on. `good_step` counts the steps behind the kept weights,
    `bad` the readings since then."""

    def __init__(self, ctx: StageContext, stop: Stop, examples: Sequence[Example]) -> None:
        self._ctx = ctx
        self._stop = stop
        batches = [b.to(ctx.device) for b in ctx.encode("guard", examples).chunks(ROWS)]
        self._yardstick = Yardstick(ctx, batches)
        self._readings: list[list[float]] = []
        self.good_step = self.bad = 0
        self._good: dict[str, Tensor] = dict(ctx.views.original)
        self.collapse: dict[str, Any] | None = None

    def after(self, step: int) -> Scalars:
        """Measure after step `step` (from 0) if it is due, and keep or give back weights. Sets `collapse`."""
        done = step + 1
        if done % self._stop.every and done != self._ctx.train.steps:
            return {}
        found = self._yardstick.drift()
        self._readings.append([float(done), found.kl, found.ppl_rise])
        why = self._over(found)
        if why:
            self.bad += 1
            if self.bad > self._stop.patience or done == self._ctx.train.steps:
                told = f"stopped after step {done} of {self._ctx.train.steps}: {why}"
                self._give_back({"stopped_after": done, "why": why}, told)
        else:
            self.good_step, self.bad = done, 0
            self._good = {name: p.detach().clone() for name, p in self._ctx.trainable.items()}
        return {"guard_retain_kl": found.kl, "guard_ppl_rise": found.ppl_rise}

    def close(self) -> Scalars:
        """The closing scalars, and the readings for the page. Measures what `finish` made of the weights first."""
        self._read_last_edit()
        lines = {"KL, nats per token": [(r[0], r[1]) for r in self._readings]}
        lines["perplexity rise"] = [(r[0], r[2]) for r in self._readings]
        limits = [f"KL {self._stop.retain_kl:g}"] if self._stop.retain_kl is not None else []
        limits += [f"perplexity rise {self._stop.ppl_rise:g}"] if self._stop.ppl_rise is not None else []
        told = self.collapse["told"] if self.collapse else "No limit was passed: all of it counts."
        note = f"Limits: {', '.join(limits)}. {told}"
        self._ctx.report.series("Collapse guard", lines, x="step", y="on kept text", note=note)
        return {"guard_kept_step": float(self.good_step)}

    def state_dict(self) -> dict[str, Any]:
        return {"good_step": self.good_step, "bad": self.bad, "good": self._good, "readings": self._readings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.good_step, self.bad = int(state["good_step"]), int(state["bad"])
        trainable = self._ctx.trainable
        self._good = {n: placed_like(t.to(self._ctx.device), trainable[n]) for n, t in state["good"].items()}
        self._readings = [list(r) for r in state["readings"]]

    def _read_last_edit(self) -> None:
        """An objective may edit the weights when it finishes: a closed form does nothing else."""
        kept = [torch.equal(p, self._good[name]) for name, p in self._ctx.trainable.items()]
        if not self._ctx.processes.any(not all(kept)):
            return
        found = self._yardstick.drift()
        done = self._ctx.train.steps
        self._readings.append([float(done), found.kl, found.ppl_rise])
        if why := self._over(found):
            self._give_back({"stopped_after": done, "why": why}, f"took its last edit back: {why}")
        else:
            self.good_step = done

    def _over(self, found: Drift) -> str:
        """Which limit is passed, in words; "" for none."""
        limits = (
            ("retain KL", found.kl, self._stop.retain_kl),
            ("perplexity rise", found.ppl_rise, self._stop.ppl_rise),
        )
        # written so that a reading that is no number is no good one either
        passed = [
            f"{n} {value:.3g} (limit {most:g})" for n, value, most in limits if most is not None and not value <= most
        ]
        return " and ".join(passed)

    def _give_back(self, end: dict[str, Any], told: str) -> None:
        with torch.no_grad():
            for name, parameter in self._ctx.trainable.items():
                parameter.copy_(self._good[name])
        self._ctx.views.clear()
        kept = (
            f"the weights after step {self.good_step} are kept"
            if self.good_step
            else "the weights from before the stage are kept"
        )
        told = f"{told}; {kept}"
        self.collapse = {**end, "kept": self.good_step, "told": f"The stage {told}."}
        self._ctx.services.warn(f"the stage {told}")
