"""What a validation split says about a: the slope of its loss after a virtual unlearning step (bi-level)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn_suite import Batch, Example, Scalars, StageContext, TrainingError

from .config import CosineRmuConfig
from .draws import inner_rate
from .terms import Terms

TINY = 1e-12


@dataclass(frozen=True)
class Look:
    """`pull`: dV/dlog a over |psi - phi| |grad V|, the most that a step of this length could change V by."""

    pull: float
    scalars: Scalars


class Validation:
    """Takes units of both roles out of the training, and reads V(psi) = L_F + c L_R on them.

    psi(a) = phi - s grad(L_F + a L_R)(phi), s = eta or (`sgd_norm`) eta |phi| / |grad(L_F + a L_R)|. So
    dV/da = -s <grad V(psi), grad L_R(phi)>; with the normalised step grad L_R without what it has along the step.
    """

    def __init__(self, ctx: StageContext, config: CosineRmuConfig, terms: Terms) -> None:
        self.ctx, self.config, self.terms = ctx, config, terms
        for role in ("forget", "retain"):
            hold_out(ctx, role, f"held-{role}", config.validation_share)

    def look(self, forget: Batch, retain: Batch, a: float) -> Look:
        """At phi, with the step's training batches."""
        ctx, terms, config = self.ctx, self.terms, self.config
        held = {role: ctx.draw(f"held-{role}", ctx.step_index) for role in ("forget", "retain")}

        def inner(_: int) -> Tensor:
            return terms.forget(forget) + a * terms.retain(retain)

        part = self._gradient(terms.retain(retain))
        rate = inner_rate(ctx, config)
        with ctx.adversary.walk(inner, steps=1, lr=rate, optimizer=config.inner_optimizer) as walk:
            taken = walk.step()
            f, r = terms.forget(held["forget"]), terms.retain(held["retain"])
            outer = self._gradient(f + config.trade_off * r)
            slope = walk.slope(taken, part, outer)
            most = self._norm(walk.back()) * self._norm(outer)
        ctx.policy.clear()
        scalars = {
            "validation_forget": ctx.total(f.detach()),
            "validation_retain": ctx.total(r.detach()),
            "weight_slope": slope,
        }
        return Look(a * slope / max(most, TINY), scalars)

    def _gradient(self, loss: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(loss, list(self.ctx.trainable.values()))
        self.ctx.policy.clear()
        return dict(zip(self.ctx.trainable, found, strict=True))

    def _norm(self, tensors: Mapping[str, Tensor]) -> float:
        return float(self.ctx.global_norm(list(tensors.values())))


def hold_out(ctx: StageContext, role: str, held: str, share: float) -> None:
    """Draw the role `held` from a share of the units of `role`, and `role` from the others: one at least each.

    Fixed by hash. Raises `TrainingError` when there are no two units.
    """
    examples = [e.example for e in ctx.roles[role].encoded]
    units = sorted({_unit(e) for e in examples}, key=_hash)
    if len(units) < 2:
        raise TrainingError(
            f"weight_rule: bilevel holds units of {role!r} out of the training, and there is only one",
            code="too-few-examples",
            hint="set `weight_rule: dual`, or give more text",
        )
    out = set(units[: min(max(1, round(share * len(units))), len(units) - 1)])
    ctx.set_role(held, [e for e in examples if _unit(e) in out])
    ctx.set_role(role, [e for e in examples if _unit(e) not in out])


def _unit(example: Example) -> str:
    return example.unit or example.id


def _hash(unit: str) -> bytes:
    """Another one than that of `split_role`, so that both its halves lose units."""
    return hashlib.sha256(f"validation/{unit}".encode()).digest()
