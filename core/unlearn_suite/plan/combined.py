"""Metric entries that combine others: each name must be an entry of the problem with a headline value from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence

from .faults import Faults, suggest
from .model import MetricUse
from .text import Node


def check_combined(entry: Node, use: MetricUse, uses: Sequence[MetricUse], problem: str, faults: Faults) -> None:
    """Note what is wrong with the entry's option `of`; nothing for an entry that does not combine others."""
    if not use.spec.combines:
        return
    by_name = {other.name: other for other in uses if not other.spec.combines}
    options = entry.under("with")
    given = options.under("of") if options else None
    for node in given.items if given else []:
        member = by_name.get(str(node.value))
        if member is None:
            message = f"problem {problem!r} has no metric entry {node.value!r} to combine"
            faults.add(node.at, message, "plan-metric", suggest(str(node.value), by_name, all_of_them="its entries"))
            continue
        value = member.spec.values[member.show[0]]
        shown = f"{member.show[0]!r}, the first value that {node.value!r} shows, is not from 0"
        share = (value.lowest, value.highest) == (0, 1)
        if use.spec.combines == "harmonic" and not (share and value.better == "higher"):
            faults.add(node.at, f"{shown} (bad) to 1 (good)", "plan-metric", "a harmonic mean needs such values")
        elif not share:
            faults.add(node.at, f"{shown} to 1", "plan-metric", "only such values are combined")
