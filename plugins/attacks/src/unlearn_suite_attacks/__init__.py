"""Attacks that bring forgotten things back when they were only hidden."""

from __future__ import annotations

from collections.abc import Callable

from unlearn_suite import AttackSpec, hookimpl

from . import quantise, relearn


@hookimpl
def register_attacks(register: Callable[[AttackSpec], None]) -> None:
    register(relearn.SPEC)
    register(quantise.SPEC)
