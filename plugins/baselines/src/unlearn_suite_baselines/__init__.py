"""The published objectives that new ones are compared with: a light card and a short method each."""

from __future__ import annotations

from collections.abc import Callable

from unlearn_suite import ObjectiveSpec, hookimpl

from .cards import CARDS


@hookimpl
def register_objectives(register: Callable[[ObjectiveSpec], None]) -> None:
    for card in CARDS:
        register(card.SPEC)
