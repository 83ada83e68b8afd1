"""The trade-off: F against R of every arm; arms of one family (a sweep) joined along their best points."""

from __future__ import annotations

from collections.abc import Sequence

from .chart import SHAPES, Scale, Svg, marker, polyline, ticks
from .scores import ArmScore, dominated
from .words import number

WIDTH, HEIGHT = 560.0, 350.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 18.0, 18.0, 46.0


def families(scores: Sequence[ArmScore]) -> dict[str, list[ArmScore]]:
    """The arms of each family of two or more, by rising F."""
    found: dict[str, list[ArmScore]] = {}
    for score in scores:
        if score.family:
            found.setdefault(score.family, []).append(score)
    return {
        name: sorted(members, key=lambda s: (s.forgotten.mean, -s.retained.mean))
        for name, members in found.items()
        if len(members) > 1
    }


def front(scores: Sequence[ArmScore], problem: str, name: str) -> str:
    """Inline SVG; "" when no family has two points."""
    swept = families(scores)
    if not swept:
        return ""
    told = "; ".join(f"{s.arm}: F {number(s.forgotten.mean, 2)}, R {number(s.retained.mean, 2)}" for s in scores)
    svg = Svg(WIDTH, HEIGHT, f"Trade-off: {problem}", told, name, "scatter")
    low = min(s.retained.mean for s in scores)
    x = Scale(-0.04, 1.04, LEFT, WIDTH - RIGHT)
    y = Scale(max(min(0.9, low - 0.05), -0.04), 1.03, HEIGHT - BOTTOM, TOP)
    _axes(svg, x, y)
    series = {family: i for i, family in enumerate([*swept, ""])}
    for family, members in swept.items():
        best = [s for s in members if not dominated(members, s)]
        points = polyline([x(s.forgotten.mean) for s in best], [y(s.retained.mean) for s in best])
        svg.add("polyline", points=points, class_=f"series s{series[family] % 6} curve-line")
    for score in scores:
        _draw(svg, score, x, y, series[score.family if score.family in swept else ""])
    for i, family in enumerate(swept):
        row = HEIGHT - BOTTOM - 12 - 15 * (len(swept) - 1 - i)
        svg.parts.append(marker(SHAPES[i % len(SHAPES)], LEFT + 14, row - 4, 5, f"series s{i % 6} solid"))
        svg.text(LEFT + 24, row, family, f"label series s{i % 6} name", "start")
    return svg.render()


def _axes(svg: Svg, x: Scale, y: Scale) -> None:
    for tick in ticks(y.lo, y.hi, 5):
        svg.line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "rule")
        svg.text(LEFT - 8, y(tick) + 4, number(tick, 2), "tick", "end")
    for tick in ticks(0, 1, 5):
        svg.line(x(tick), TOP, x(tick), HEIGHT - BOTTOM, "rule")
        svg.text(x(tick), HEIGHT - BOTTOM + 17, number(tick, 1), "tick", "middle")
    svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "F, forgotten  →", "axis", "middle")
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f"rotate(-90 14 {middle:.0f})"
    svg.add("text", "R, retained  →", x=14.0, y=middle, class_="axis", text_anchor="middle", transform=turned)


def _draw(svg: Svg, score: ArmScore, x: Scale, y: Scale, series: int) -> None:
    css = f"series s{series % 6}"
    f, r = score.forgotten, score.retained
    px, py = x.inside(f.mean), y.inside(r.mean)
    svg.line(x.inside(f.lo), py, x.inside(f.hi), py, f"{css} whisker")
    svg.line(px, y.inside(r.lo), px, y.inside(r.hi), f"{css} whisker")
    hint = f"{score.arm}: F {number(f.mean, 3)}, R {number(r.mean, 3)}, U {number(score.unified.mean, 3)}"
    svg.parts.append(marker(SHAPES[series % len(SHAPES)], px, py, 5.5, f"{css} solid", hint))
