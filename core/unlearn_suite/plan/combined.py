"""Metric entries that combine others: each name must be an entry of the problem with a headline value from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .faults import Faults, suggest
from .model import MetricUse
from .text import Mark, Node


def check_combined(
    entry: Node, use: MetricUse, uses: Sequence[MetricUse], dropped: Mapping[str, Mark], problem: str, faults: Faults
) -> None:
    """Note what is wrong with the entry's option `of`; nothing for an entry that does not combine others.
    `dropped` are entries that the plan took out of the problem, and where."""
    if not use.spec.combines:
        return
    by_name = {other.name: other for other in uses if not other.spec.combines}
    options = entry.under("with")
    given = options.under("of") if options else None
    for node in given.items if given else []:
        name = str(node.value)
        if name in dropped:
            hint = f"drop {use.name!r} as well, or change its `of`"
            faults.add(dropped[name], f"{name!r} cannot be dropped: {use.name!r} combines it", "plan-metric", hint)
            continue
        member = by_name.get(name)
        if member is None:
            message = f"problem {problem!r} has no metric entry {node.value!r} to combine"
            faults.add(node.at, message, "plan-metric", suggest(name, by_name, all_of_them="its entries"))
            continue
        value = member.spec.values[member.show[0]]
        shown = f"{member.show[0]!r}, the first value that {node.value!r} shows, is not from 0"
        share = (value.lowest, value.highest) == (0, 1)
        if use.spec.combines == "harmonic" and not (share and value.better == "higher"):
            faults.add(node.at, f"{shown} (bad) to 1 (good)", "plan-metric", "a harmonic mean needs such values")
        elif not share:
            faults.add(node.at, f"{shown} to 1", "plan-metric", "only such values are combined")
