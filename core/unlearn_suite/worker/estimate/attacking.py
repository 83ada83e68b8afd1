"""What an attack and the scoring on its way take together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...engine.attack import Attack
from ...engine.preflight import AttackPlan, Family, estimate_attack
from ...plugins import blame, load_target
from ...specs import AttackSpec
from .reasons import doubts, reason_of
from .scoring import ScoringEstimate

if TYPE_CHECKING:
    from ...plugins import Entry


@dataclass(frozen=True)
class AttackNeeds:
    """Bytes and FLOPs. `peak_bytes`: what torch has allocated at most, `resident_bytes`: what a Linux process keeps in
    RAM for it, weights included. On the disk an attack leaves nothing but scores. `notes`: what is missing or a guess.
    """

    peak_bytes: int
    resident_bytes: int
    flops: int
    notes: tuple[str, ...] = ()


def attack_needs(
    entry: Entry,
    attack: Mapping[str, Any],
    plan: Callable[[Callable[[], Attack[Any]]], AttackPlan],
    family: Family,
    tokenizer: Any,
    scoring: ScoringEstimate,
) -> AttackNeeds:
    """`scoring`: of the model at one point of the attack. Where the attack cannot be traced, of that alone."""
    scored = scoring.peak_bytes or 0
    flops = len(attack["points"]) * scoring.flops
    spec = entry.spec
    assert isinstance(spec, AttackSpec)
    try:
        with blame(entry):
            kind = load_target(spec.load)
            config = spec.config(**attack["with"])
            found = estimate_attack(family, tokenizer, plan(lambda: kind(config)))
    except Exception as error:
        note = f"the attack {attack['name']} could not be traced, only its scoring is counted: {reason_of(error)}"
        return AttackNeeds(scored, scored, flops, (note,))
    beside = max(scored - family.weight_bytes(), 0)
    return AttackNeeds(
        peak_bytes=max(found.peak_bytes, found.held_bytes + beside),
        resident_bytes=max(found.resident_bytes, found.held_resident + beside),
        flops=found.flops + flops,
        notes=tuple(doubts(found.doubtful, f"the attack {attack['name']}")),
    )
