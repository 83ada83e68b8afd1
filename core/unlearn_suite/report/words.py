"""Numbers and intervals as text, the same everywhere: console, tables, figures, sentences."""

from __future__ import annotations

import math

from .stats import Estimate

MINUS = "−"


def decimals(scale: float) -> int:
    """How many decimals show about four digits of a number of this size."""
    size = abs(scale)
    if size >= 1000:
        return 0
    if size >= 100:
        return 1
    if size >= 10:
        return 2
    return 3 if size >= 0.01 or size == 0 else 5


def number(value: float | None, places: int | None = None) -> str:
    """A plain number; '–' for none."""
    if value is None or not math.isfinite(value):
        return "–"
    places = decimals(value) if places is None else places
    text = f"{abs(value):,.{places}f}"
    return f"{MINUS if value < 0 and float(text.replace(',', '')) else ''}{text}"


def signed(value: float | None, places: int | None = None) -> str:
    """A change: always with its sign, except for 0."""
    text = number(value, places)
    if value is None or text == "–" or value <= 0 or not float(text.replace(",", "")):
        return text
    return f"+{text}"


def percent(share: float | None) -> str:
    """A relative change with its sign: 0.021 -> '+2.1 %'."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{signed(100 * share, 0 if abs(share) >= 0.0995 else 1)}\u00a0%"


def between(estimate: Estimate | None, places: int, sign: bool = False) -> str:
    """The ends of an interval: '−0.65 to −0.54'; why there is none."""
    if estimate is None:
        return "–"
    if estimate.alone:
        return "too few items"
    show = signed if sign else number
    return f"{show(estimate.lo, places)} to {show(estimate.hi, places)}"


def seconds(value: float | None) -> str:
    """A duration: '8.1 s', '3 min 20 s', '2 h 5 min'."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listing(items: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"
