"""The forget-versus-keep picture: how far each arm moved what it should, against what it kept."""

from __future__ import annotations

from dataclasses import dataclass

from .chart import SHAPES, Scale, Svg, marker, short, ticks
from .measures import Measure, Result
from .stats import Estimate
from .summary import ProblemSummary
from .words import number

WIDTH, HEIGHT = 560.0, 350.0
LEFT, RIGHT, TOP, BOTTOM = 72.0, 18.0, 18.0, 50.0
LABEL_GAP = 15.0


@dataclass(frozen=True)
class Kept:
    """How much of one kept measure is left: 1 = all that the base model had."""

    measure: Measure
    share: Estimate


@dataclass(frozen=True)
class ArmPoint:
    """One arm: `gone` of the forget measure, and every kept measure, the worst first."""

    arm: str
    series: int
    gone: Estimate
    kept: tuple[Kept, ...]


def forget_measure(problem: ProblemSummary) -> Measure | None:
    """The first headline value that the plan wants changed."""
    return next((m for m in problem.headlines if m.entry.want in {"lower", "higher"}), None)


def arm_points(problem: ProblemSummary) -> list[ArmPoint]:
    """The arms that have both a forget measure and a kept one."""
    forget = forget_measure(problem)
    if forget is None:
        return []
    keeps = [m for m in problem.headlines if m.entry.want == "keep"]
    found = []
    for series, arm in enumerate(problem.arms):
        gone = share_gone(forget, forget.arms.get(arm))
        kept = [Kept(m, share) for m in keeps if (share := share_kept(m, m.arms.get(arm))) is not None]
        if gone is not None and kept:
            found.append(ArmPoint(arm, series, gone, tuple(sorted(kept, key=lambda k: k.share.mean))))
    return found


def share_gone(measure: Measure, result: Result | None) -> Estimate | None:
    """How far the value went the wanted way, relative to base (to base minus chance where chance is known)."""
    if result is None or result.compared is None:
        return None
    return result.compared.removed if measure.entry.want == "lower" else result.compared.relative


def share_kept(measure: Measure, result: Result | None) -> Estimate | None:
    """What is left of a kept value, in its good direction; None where the base model is no better than chance."""
    compared = result.compared if result is not None else None
    if compared is None or compared.relative is None or compared.before.mean <= 0:
        return None
    relative = compared.relative
    if measure.info.better == "lower":
        if relative.lo <= -1:
            return None
        return Estimate(1 / (1 + relative.mean), 1 / (1 + relative.hi), 1 / (1 + relative.lo))
    if measure.info.chance:
        removed = compared.removed
        if removed is None or not compared.before.above(measure.info.chance):
            return None
        return Estimate(1 - removed.mean, 1 - removed.hi, 1 - removed.lo)
    return Estimate(1 + relative.mean, 1 + relative.lo, 1 + relative.hi)


def scatter(problem: ProblemSummary, name: str) -> str:
    """The picture as inline SVG; '' when no arm has both sides."""
    points = arm_points(problem)
    forget = forget_measure(problem)
    if not points or forget is None:
        return ""
    told = "; ".join(
        f"{p.arm}: {number(p.gone.mean, 2)} gone, {number(p.kept[0].share.mean, 2)} of the worst kept measure left"
        for p in points
    )
    svg = Svg(WIDTH, HEIGHT, f"Forgotten against kept: {problem.problem}", told, name, "scatter")
    x, y = _scales(points)
    _axes(svg, x, y, forget)
    svg.parts.append(marker("cross", x(0), y(1), 5, "base-point", "the untouched model"))
    svg.text(x(0) + 9, y(1) - 7, "untouched", "label muted")
    taken = [(x(0) + 9, y(1) - 7)]
    for point in points:
        _draw(svg, point, x, y)
    for point in sorted(points, key=lambda p: y.inside(p.kept[0].share.mean)):
        _label(svg, point, x, y, taken)
    return svg.render()


def _scales(points: list[ArmPoint]) -> tuple[Scale, Scale]:
    """Both axes show 0..1 and 'all kept', and grow to hold the points (intervals may be cut at the edge)."""
    gone = [p.gone.mean for p in points]
    lo, hi = min(-0.08, *gone), max(1.06, *gone)
    x = Scale(max(lo - 0.04 * (lo < -0.08), -1.5), min(hi, 3.0), LEFT, WIDTH - RIGHT)
    kept = [k.share.mean for p in points for k in p.kept]
    reach = [min(p.kept[0].share.lo for p in points), *kept]
    bottom = max(min(0.88, min(reach) - 0.03), 0.0)
    top = min(max(1.06, max(kept) + 0.03), 1.6)
    return x, Scale(bottom, top, HEIGHT - BOTTOM, TOP)


def _axes(svg: Svg, x: Scale, y: Scale, forget: Measure) -> None:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in ticks(y.lo, y.hi, 5):
        svg.line(LEFT, y(tick), right, y(tick), "rule strong" if tick == 1 else "rule")
        svg.text(LEFT - 8, y(tick) + 4, f"{100 * tick:.4g} %", "tick", "end")
    for tick in ticks(x.lo, x.hi, 6):
        svg.line(x(tick), TOP, x(tick), floor, "rule")
        svg.text(x(tick), floor + 17, f"{short(round(100 * tick, 6))} %", "tick", "middle")
    svg.text((LEFT + right) / 2, HEIGHT - 12, _gone_label(forget), "axis", "middle")
    middle = (TOP + floor) / 2
    svg.add("text", "left of the worst kept measure  →", x=14.0, y=middle, class_="axis", text_anchor="middle",
            transform=f"rotate(-90 14 {middle:.0f})")  # fmt: skip


def _gone_label(forget: Measure) -> str:
    if forget.entry.want == "higher":
        return f"“{forget.label}” gained, relative to the untouched model  →"
    whole = "down to chance" if forget.info.chance else "all of it"
    return f"“{forget.label}” removed (100 % = {whole})  →"


def _draw(svg: Svg, point: ArmPoint, x: Scale, y: Scale) -> None:
    css = f"series s{point.series % 6}"
    worst = point.kept[0].share
    px, py = x.inside(point.gone.mean), y.inside(worst.mean)
    svg.line(x.inside(point.gone.lo), py, x.inside(point.gone.hi), py, f"{css} whisker")
    svg.line(px, y.inside(worst.lo), px, y.inside(worst.hi), f"{css} whisker")
    for other in point.kept[1:]:
        hint = f"{point.arm}, {other.measure.label}: {100 * other.share.mean:.1f} % left"
        svg.parts.append(marker("circle", px, y.inside(other.share.mean), 3, f"{css} open", hint))
    hint = (
        f"{point.arm}: {100 * point.gone.mean:.1f} % gone; worst kept measure {point.kept[0].measure.label}: "
        f"{100 * worst.mean:.1f} % left"
    )
    svg.parts.append(marker(SHAPES[point.series % len(SHAPES)], px, py, 6.5, f"{css} solid", hint))


def _label(svg: Svg, point: ArmPoint, x: Scale, y: Scale, taken: list[tuple[float, float]]) -> None:
    """The arm's name beside its point, moved away until it is clear of the other labels."""
    px, py = x.inside(point.gone.mean), y.inside(point.kept[0].share.mean)
    left = px > (LEFT + WIDTH) / 2
    at_x, at_y, step = px - 11 if left else px + 11, py + 17, LABEL_GAP
    if at_y > HEIGHT - BOTTOM - 4:
        at_y, step = py - 12, -LABEL_GAP
    reach = 7.0 * len(point.arm)
    while any(abs(at_y - ty) < LABEL_GAP and abs(at_x - tx) < reach + 40 for tx, ty in taken):
        at_y += step
    taken.append((at_x, at_y))
    svg.text(at_x, at_y, point.arm, f"label series s{point.series % 6} name", "end" if left else "start")
