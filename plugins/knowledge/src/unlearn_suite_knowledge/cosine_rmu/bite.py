"""Does the simulated attack bite? A = (L(phi) - L(psi_K)) / (L(phi) - L(base)): the lost ability it wins back."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import torch

from unlearn_suite import Batch, StageContext

from .config import CosineRmuConfig
from .terms import Terms, next_token_loss

EVERY = 5
"""attacks from one measurement to the next"""
ENOUGH = 3
"""measurements before a warning"""
NOTHING = 1e-3
"""share of the loss below which nothing was forgotten that could be won back: a ratio of roundings, told as 0"""
NO_OP, TOO_STRONG, EXPLOSION = 0.1, 0.9, 10.0


class Bite:
    """Measures A now and then; warns once when attacks do nothing, once when they win everything back and training does
    not change that, and once when the meta-gradient explodes."""

    def __init__(self, ctx: StageContext, config: CosineRmuConfig, terms: Terms) -> None:
        self.ctx, self.config, self.terms = ctx, config, terms
        self.seen: list[float] = []
        self.after: list[float] = []  # L_F after the attack, wherever A was measured
        self.ratios: list[float] = []
        self.warned: list[str] = []

    def reading(self, x: Batch) -> Reading:
        """To be asked before, in and after an attack whose meta text is `x`."""
        due = (self.ctx.step_index // self.config.fork_every) % EVERY == 0
        return Reading(self, x) if due else Reading(self, None)

    @torch.no_grad()
    def loss(self, x: Batch) -> float:
        """L on the meta text: what relearning would minimise."""
        if self.config.inner_loss == "ce":
            return self.ctx.total(next_token_loss(self.ctx.policy, x))
        return self.ctx.total(self.terms.relearned(x))

    @torch.no_grad()
    def base_loss(self, x: Batch) -> float:
        if self.config.inner_loss != "ce":
            return 0.0
        return self.ctx.total(next_token_loss(self.ctx.reference, x))

    def judge(self, norm_ratio: float, bite: float | None = None, after: float = 0.0) -> None:
        """`bite`: of an attack that relearns, when it was measured; `after`: L_F at the attacked weights."""
        self.ratios.append(norm_ratio)
        if norm_ratio > EXPLOSION:
            self._warn(
                "explosion",
                f"the meta-gradient was {norm_ratio:.3g} times the plain one (it is clipped): lower inner_lr",
            )
        if bite is not None:
            self.seen.append(bite)
            self.after.append(after)
            last = self.seen[-EVERY:]
            if len(last) >= ENOUGH and median(last) < NO_OP:
                self._warn(
                    "no-op",
                    f"simulated attacks win back {100 * median(last):.2g} % of what was forgotten (median), so "
                    "the meta-gradient says little new: raise inner_lr or inner_steps",
                )

            if len(last) == EVERY and median(last) > TOO_STRONG and not self._falls():
                self._warn(
                    "too-strong",
                    f"simulated attacks win back {100 * median(last):.2g} % of what was forgotten (median), and the "
                    "forget loss after them does not fall: lower inner_lr or inner_steps",
                )

    def _falls(self) -> bool:
        """Whether L_F after the attack is lower than it was at first."""
        return median(self.after[-ENOUGH:]) < median(self.after[:ENOUGH])

    def close(self) -> None:
        """The table on the page, where anything was measured."""
        rows: list[list[float | int | str | None]] = []
        if self.seen:
            alarms = {"no-op": "ALARM: the attacks do nothing", "too-strong": "ALARM: the attacks win everything back"}
            state = next((told for kind, told in alarms.items() if kind in self.warned), "quiet")
            levels = f"median below {NO_OP:g}, or above {TOO_STRONG:g} to no avail"
            rows.append(["bite", len(self.seen), median(self.seen), min(self.seen), levels, state])
        if self.ratios:
            worst = max(self.ratios)
            state = "ALARM: the meta-gradient explodes" if worst > EXPLOSION else "quiet"
            name = "meta-gradient / plain"
            rows.append([name, len(self.ratios), median(self.ratios), worst, f"above {EXPLOSION:g}", state])
        if rows:
            columns = ["reading", "times", "median", "worst", "alarm", ""]
            note = "Bite: the share of what was forgotten that a simulated attacker wins back. Tune for 0.3 to 0.7."
            self.ctx.report.table("Do the simulated attacks bite?", columns, rows, note)

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self.warned:
            self.warned.append(kind)
            self.ctx.services.warn(f"cosine-rmu, step {self.ctx.step_index}: {text}")

    def state_dict(self) -> dict[str, Any]:
        numbers = {"bites": list(self.seen), "after": list(self.after), "ratios": list(self.ratios)}
        return {**numbers, "warned": list(self.warned)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen, self.after = list(state["bites"]), list(state.get("after", ()))
        self.ratios, self.warned = list(state["ratios"]), list(state["warned"])


class Reading:
    """One measurement, or none (`x` None)."""

    def __init__(self, owner: Bite, x: Batch | None) -> None:
        self._owner, self._x = owner, x
        self._before = owner.loss(x) if x is not None else 0.0
        self._after = 0.0

    def after(self) -> None:
        """At a read-out; the last one counts."""
        if self._x is not None:
            self._after = self._owner.loss(self._x)

    def value(self) -> float | None:
        """A; None when it was not measured."""
        if self._x is None:
            return None
        gap = self._before - self._owner.base_loss(self._x)
        lost = abs(gap) > NOTHING * abs(self._before)
        return (self._before - self._after) / gap if lost else 0.0
