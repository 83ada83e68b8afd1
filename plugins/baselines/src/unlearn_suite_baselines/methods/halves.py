"""Disjoint halves of the forget set: what a simulated attacker trains on, and what is measured after it."""

from __future__ import annotations

import hashlib

from unlearn_suite import Example, StageContext


def split_forget(ctx: StageContext, attack: str, held_out: str) -> None:
    """Set two roles to halves of the role "forget", by unit; to all of it, with a warning, when a half is empty."""
    examples = [e.example for e in ctx.roles["forget"].encoded]
    halves: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        digest = hashlib.sha256((example.unit or example.id).encode()).digest()
        halves[digest[0] % 2].append(example)
    if not all(halves):
        halves = (examples, examples)
        ctx.services.warn("too few forget units to split; the simulated attacker trains on the text it is judged on")
    ctx.set_role(attack, halves[0])
    ctx.set_role(held_out, halves[1])
