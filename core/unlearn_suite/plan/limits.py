"""What a problem expects of the arms that unlearn, and whether a number keeps within such limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from .check import check
from .faults import Faults, suggest
from .grammar import LimitWords
from .model import Limit, MetricUse

if TYPE_CHECKING:
    from .text import Node


_OF = {"change": "change of ", "relative_change": "relative change of "}


def subject(metric: str, value: str | None, of: str) -> str:
    """What a line of `expect` is about: "relative change of keep perplexity"."""
    name = metric if value in (None, metric) else f"{metric} {value}"
    return f"{_OF.get(of, '')}{name}{' over the oracle' if of == 'over_oracle' else ''}"


def outside(number: float, below: float | None, above: float | None) -> list[str]:
    """The limits that a number is not within: "below 0.3", "above 0"; [] when it is."""
    told = [f"below {below:g}"] if below is not None and not number < below else []
    return told + ([f"above {above:g}"] if above is not None and not number > above else [])


def read_limits(
    node: Node | None, uses: Sequence[MetricUse], dropped: Collection[str], problem: str, faults: Faults
) -> tuple[Limit, ...]:
    """The lines of a problem's `expect`. What is expected of an entry that the plan `dropped` is dropped with it."""
    entries = {use.name: use for use in uses}
    limits = []
    for line in node.items if node is not None else []:
        words = check(line, LimitWords, faults)
        if words is None or words.metric in dropped:
            continue
        if words.metric not in entries:
            hint = suggest(words.metric, entries, all_of_them="its entries")
            message = f"problem {problem!r} has no metric entry {words.metric!r}"
            faults.add(line.map["metric"].at, message, "plan-expect", hint)
            continue
        value = value_of(entries[words.metric], words.value, line, faults)
        if value is not None:
            limits.append(Limit(words.metric, value, words.of, words.below, words.above))
    return tuple(limits)


def value_of(entry: MetricUse, name: str | None, line: Node, faults: Faults) -> str | None:
    """The name of the value that a line of `expect` is about; None, with a fault, where the metric has none such."""
    known: Mapping[str, object] = entry.spec.values
    if name is not None and name not in known:
        hint = suggest(name, known, all_of_them="there are")
        faults.add(line.map["value"].at, f"there is no value of {entry.spec.name!r} {name!r}", "plan-expect", hint)
        return None
    return entry.show[0] if name is None else name
