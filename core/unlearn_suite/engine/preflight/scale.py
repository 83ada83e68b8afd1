"""From two small widths to the full one: which widths a number is made of follows from its values on the twins.

The twins' widths are chosen so that the ratios between them are quotients of different primes (3/2, 7/5, 13/11 ...).
A size or a FLOP count is a product of widths and of numbers that come from the data. The ratio of its two values
then names the widths, and how often each occurs, without doubt: factorisation is unique.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Width:
    """One width of a model, in units of `unit` on the twins: unit x small and unit x large, both prime."""

    name: str
    small: int
    large: int
    full: int
    unit: int = 1

    def on(self, twin: int) -> int:
        """The width of twin 0 or 1."""
        return self.unit * (self.large if twin else self.small)


class Scale:
    """Numbers at full width from their values on the two twins."""

    def __init__(self, widths: Sequence[Width]) -> None:
        primes = [p for w in widths for p in (w.small, w.large)]
        if len(set(primes)) < len(primes):
            raise ValueError(f"the twins' widths share a prime: {primes}")
        self.widths = tuple(widths)
        self._known: dict[tuple[int, int], tuple[float, bool]] = {}

    def full(self, a: int, b: int) -> tuple[float, bool]:
        """(the number at full width, whether the widths it is made of are known).

        Where they are not (a sum of different widths), it is taken to grow like the widths on average.
        """
        if (a, b) not in self._known:
            self._known[a, b] = self._factorised(a, b)
        return self._known[a, b]

    def _factorised(self, a: int, b: int) -> tuple[float, bool]:
        if a == b:
            return float(a), True
        if a <= 0 or b <= 0:
            return float(max(a, b)), False
        ratio, value = Fraction(b, a), Fraction(a)
        for width in self.widths:
            while ratio.numerator % width.large == 0 and ratio.denominator % width.small == 0:
                ratio /= Fraction(width.large, width.small)
                value *= Fraction(width.full, width.on(0))
        if ratio == 1:
            return float(value), True
        growth = sum(w.full / w.on(1) for w in self.widths) / len(self.widths)
        return max(a, b) * growth, False
