"""Texts of a role that a stage does not train on, chosen by hash, so that something honest can be measured on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256

from ..errors import TrainingError
from ..specs import Example, Stop

ROLE = "retain"
MOST = 0.25
"""largest share of the role that is held out"""


def hold_out(
    examples: Mapping[str, Sequence[Example]], stop: Stop | None
) -> tuple[Mapping[str, Sequence[Example]], Sequence[Example]]:
    """(what may be trained on, what the guard measures on). Whole units (a fact, a prompt) are kept together.

    Raises `TrainingError` when the problem has no such role, or too little text in it.
    """
    if stop is None:
        return examples, ()
    role = stop.role or ROLE
    if not examples.get(role):
        hint = "name another one with `stop: {role: ...}`; its roles: " + ", ".join(examples)
        raise TrainingError(f"the problem has no data role {role!r} for the guard", code="no-such-role", hint=hint)
    ordered = sorted(examples[role], key=lambda e: (_hash(e.unit or e.id), _hash(e.id)))
    if stop.role is not None:
        return examples, ordered[: stop.examples]
    most = min(stop.examples, int(MOST * len(ordered)))
    sizes = Counter(e.unit or e.id for e in ordered)
    units: set[str] = set()
    for unit in dict.fromkeys(e.unit or e.id for e in ordered):  # in the order of their hashes, those that fit
        if sizes[unit] <= most:
            units.add(unit)
            most -= sizes[unit]
    kept = [e for e in examples[role] if (e.unit or e.id) not in units]
    if not units or not kept:
        raise TrainingError(
            f"the data role {role!r} has too few texts ({len(ordered)}) to keep some out of the training for the guard",
            code="too-few-examples",
            hint="name another role with `stop: {role: ...}`",
        )
    return {**examples, role: kept}, [e for e in ordered if (e.unit or e.id) in units]


def _hash(text: str) -> bytes:
    return sha256(text.encode()).digest()
