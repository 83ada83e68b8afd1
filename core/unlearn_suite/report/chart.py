"""A small SVG kit: scales, ticks, escaped tags, markers. Colours come from the page's style sheet by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "down")
"""marker shapes, so that series differ by more than their colour"""


@dataclass(frozen=True)
class Scale:
    """Maps data [lo, hi] to pixels [start, end]."""

    lo: float
    hi: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        width = (self.hi - self.lo) or 1.0
        return self.start + (value - self.lo) / width * (self.end - self.start)

    def inside(self, value: float) -> float:
        """The pixel of a value, held at the edge of the range."""
        return self(min(max(value, self.lo), self.hi))


def ticks(lo: float, hi: float, about: int = 5) -> list[float]:
    """Round numbers between lo and hi, about that many."""
    if not hi > lo:
        return [lo]
    raw = (hi - lo) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(lo / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(hi / step + 1e-9) + 1)]


def short(value: float) -> str:
    """An axis label without needless digits: 0.25, 1,500, 2e−05."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        return f"{value:.1e}".replace("-", "−").replace("e−0", "e−").replace("e+0", "e").replace(".0e", "e")
    return f"{value:,.6g}".replace("-", "−")


@dataclass
class Svg:
    """An inline SVG with a title and a description for those who do not see it."""

    width: float
    height: float
    title: str
    description: str
    name: str
    """unique on the page: it ties the title to the picture"""
    css: str = ""
    parts: list[str] = field(default_factory=list)

    def add(self, tag: str, text: str | None = None, /, **attributes: object) -> None:
        """One element; `class_` is `class`, and other `_` in names become '-'. Text and attributes are escaped."""
        self.parts.append(element(tag, text, **attributes))

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=css)

    def text(self, x: float, y: float, text: str, css: str = "", anchor: str = "start") -> None:
        self.add("text", text, x=x, y=y, class_=css or None, text_anchor=anchor)

    def render(self) -> str:
        head = (
            f'<svg viewBox="0 0 {_number(self.width)} {_number(self.height)}" role="img" class={quoteattr(self.css)} '
            f"aria-labelledby={quoteattr(f'{self.name}-t {self.name}-d')}>"
        )
        title = element("title", self.title, id=f"{self.name}-t")
        told = element("desc", self.description, id=f"{self.name}-d")
        return f"{head}{title}{told}{''.join(self.parts)}</svg>"


def element(tag: str, text: str | None = None, /, **attributes: object) -> str:
    names = {k: k.rstrip("_").replace("_", "-") for k in attributes}
    inner = "".join(f" {names[k]}={quoteattr(_value(v))}" for k, v in attributes.items() if v is not None)
    return f"<{tag}{inner}/>" if text is None else f"<{tag}{inner}>{escape(text)}</{tag}>"


def _value(value: object) -> str:
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def polyline(xs: Sequence[float], ys: Sequence[float]) -> str:
    """The `points` of a polyline, to a tenth of a pixel."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))


def marker(shape: str, x: float, y: float, r: float, css: str, hint: str = "") -> str:
    """A marker; `hint` is shown where a pointer rests on it."""
    title = element("title", hint) if hint else ""
    if shape == "circle":
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{r:.1f}' class={quoteattr(css)}>{title}</circle>"
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
        "down": [(0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "cross": [
            *((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)),
            *((0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)),
        ],
    }[shape]
    points = polyline([x + r * dx for dx, _ in corners], [y + r * dy for _, dy in corners])
    return f"<polygon points='{points}' class={quoteattr(css)}>{title}</polygon>"
