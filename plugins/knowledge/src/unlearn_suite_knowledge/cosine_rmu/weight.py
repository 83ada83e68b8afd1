"""The weight a of L_R: as given, or adapted after every step by one of two rules."""

from __future__ import annotations

import math
from collections.abc import Mapping

from unlearn_suite import Batch, Scalars, StageContext

from .config import CosineRmuConfig
from .terms import Terms
from .validation import Validation

REACH = 100.0
"""the bi-level a stays within this factor of where it began"""


class RetainWeight:
    """`value` is a."""

    def __init__(self, ctx: StageContext, config: CosineRmuConfig, terms: Terms) -> None:
        self.ctx, self.config = ctx, config
        self.value = config.retain_weight
        self.validation = Validation(ctx, config, terms) if config.bilevel else None

    def adapt(self, batch: Mapping[str, Batch], retain: float) -> Scalars:
        """The a of this step and what was found for the next. `retain`: L_R of `batch`. {} where a is fixed."""
        if "weight" not in self.config.kinds:
            return {}
        scalars = {"retain_weight": self.value}
        if self.validation is None:
            self.value = self._dual(retain)
        elif self.ctx.step_index % self.config.fork_every == 0:
            found = self.validation.look(batch["forget"], batch["retain"], self.value)
            self.value = self._descent(found.pull)
            scalars |= found.scalars
        return scalars

    def _dual(self, retain: float) -> float:
        """[a + eta_a (L_R - epsilon)]_+, the dual ascent of L_R <= epsilon."""
        return max(self.value + self.config.retain_weight_lr * (retain - self.config.retain_target), 0.0)

    def _descent(self, pull: float) -> float:
        """a exp(-eta_v clip(pull, -1, 1)), within [a_0 / 100, 100 a_0]."""
        start = self.config.retain_weight
        moved = self.value * math.exp(-self.config.validation_lr * min(max(pull, -1.0), 1.0))
        return min(max(moved, start / REACH), start * REACH)
