"""The plots of paper-in-small.md, drawn from the tables of that page: what is plotted is what is told.

python docs/results/plot_paper.py
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import unlearn_suite.report
from unlearn_suite.report.chart import SHAPES, Scale, Svg, marker, short, ticks

HERE = Path(__file__).parent
PAGE = HERE / "paper-in-small.md"
WIDTH, TOP, RIGHT, BOTTOM = 720.0, 46.0, 24.0, 46.0
HALF = 50.0
"""the fall from which an objective of the cross-over is named in its plot, in percent"""
TITLE = "# The paper's cross-over in small"
PROBLEMS = {
    "capitals": "## Knowledge: forget the capitals, three seeds",
    "public exam": "### On a public exam",
    "our prompts": "## Toxicity: stop insults, three seeds",
    "RealToxicityPrompts": "### On RealToxicityPrompts",
}
"""{column of the first table: heading of the section it is from}"""
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
OWN = (
    "svg { font-family: system-ui, sans-serif; }",
    "svg .ground { fill: var(--panel); }",
    "svg .whisker { stroke-width: 1; opacity: .5; }",
)
"""rules of style that a page of its own has elsewhere"""
Row = dict[str, str]


@dataclass(frozen=True)
class Value:
    """A number of a table, and its interval where it has one."""

    mean: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Point:
    x: Value
    y: Value
    label: str = ""


def tables(page: str, heading: str) -> list[list[Row]]:
    """The tables under a heading, up to the next one: a row as {column: cell}, without emphasis; the first is ''."""
    body = f"\n{page}".split(f"\n{heading}\n", 1)[1]
    body = re.split(r"^#+ ", body, maxsplit=1, flags=re.MULTILINE)[0]
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE):
        head, _, *rows = (
            [re.sub(r"[*`¹]", "", c).strip() for c in line.strip("|").split("|")] for line in block.splitlines()
        )
        found.append([dict(zip(["", *head[1:]], row, strict=True)) for row in rows])
    return found


def value(cell: str) -> Value | None:
    """`.31 (.20 to .44)`, `50 % (39 to 60)`, `+19 % (9 to 31)` or `.31`; None for a cell without a number."""
    told = re.match(rf"({NUMBER})(?: %)?(?: \(({NUMBER}) to ({NUMBER})\))?", cell)
    if told is None:
        return None
    mean = float(told[1])
    return Value(mean, float(told[2] or mean), float(told[3] or mean))


def frame(name: str, title: str, told: str, height: float) -> Svg:
    svg = Svg(WIDTH, height, title, told, name)
    svg.add("rect", x=0, y=0, width=WIDTH, height=height, rx=6, class_="ground")
    return svg


def key(svg: Svg, series: Sequence[str], left: float) -> None:
    """What each marker stands for, in one line at the top."""
    for index, name in enumerate(series):
        svg.parts.append(marker(SHAPES[index], left, 22, 5, f"series s{index} solid"))
        svg.text(left + 11, 26, name)
        left += 32 + 6.6 * len(name)


def across(svg: Svg, x: Scale, top: float, floor: float, axis: str) -> None:
    for tick in ticks(x.lo, x.hi, 6):
        svg.line(x(tick), top, x(tick), floor, "rule")
        svg.text(x(tick), floor + 17, short(tick), "tick", "middle")
    svg.text((x.start + x.end) / 2, floor + 36, axis, "axis", "middle")


def ladder(name: str, title: str, axis: str, rows: Sequence[str], series: dict[str, dict[str, Value]]) -> str:
    """A row for each objective, in it a dot and an interval for each problem: `series[problem][objective]`."""
    left, step, gap = 140.0, 11.0, 16.0
    high = step * len(series) + gap
    height = TOP + high * len(rows) + BOTTOM
    told = "; ".join(f"{p}: " + ", ".join(f"{r} {v[r].mean:g}" for r in rows if r in v) for p, v in series.items())
    svg = frame(name, title, told, height)
    x = Scale(0, 1, left, WIDTH - RIGHT)
    across(svg, x, TOP, height - BOTTOM, axis)
    for index, row in enumerate(rows):
        middle = TOP + high * (index + 0.5)
        svg.text(left - 12, middle + 4, row, "", "end")
        for at, values in enumerate(series.values()):
            if row in values:
                y = middle + step * (at - (len(series) - 1) / 2)
                css = f"series s{at}"
                svg.line(x(values[row].lo), y, x(values[row].hi), y, f"{css} whisker")
                svg.parts.append(marker(SHAPES[at], x(values[row].mean), y, 4.5, f"{css} solid"))
    key(svg, list(series), left)
    return standalone(svg)


def cloud(name: str, title: str, axes: tuple[str, str], series: dict[str, list[Point]], y: tuple[float, float]) -> str:
    """Points with the intervals of both axes, a colour and a shape for each series. What is beyond `y` is left out."""
    left, height = 62.0, 430.0
    points = [p for found in series.values() for p in found]
    told = "; ".join(
        f"{s}: " + ", ".join(f"({p.x.mean:g}, {p.y.mean:g})" for p in found) for s, found in series.items()
    )
    svg = frame(name, title, told, height)
    lo, hi = min(p.x.mean for p in points), max(p.x.mean for p in points)
    air = 0.06 * (hi - lo)
    names = 0.1 * (hi - lo) if any(p.label for p in points) else 0.0
    x = Scale(lo - air, hi + air + names, left, WIDTH - RIGHT)
    up = Scale(*y, height - BOTTOM, TOP)
    across(svg, x, TOP, height - BOTTOM, axes[0])
    for tick in ticks(up.lo, up.hi, 6):
        svg.line(left, up(tick), WIDTH - RIGHT, up(tick), "rule strong" if tick == 0 else "rule")
        svg.text(left - 8, up(tick) + 4, short(tick), "tick", "end")
    middle = (TOP + height - BOTTOM) / 2
    svg.add(
        "text", axes[1], x=16.0, y=middle, class_="axis", text_anchor="middle", transform=f"rotate(-90 16 {middle:g})"
    )
    for index, found in enumerate(series.values()):
        css = f"series s{index}"
        for p in found:
            if not y[0] <= p.y.mean <= y[1]:
                continue
            px, py = x(p.x.mean), up(p.y.mean)
            svg.line(x.inside(p.x.lo), py, x.inside(p.x.hi), py, f"{css} whisker")
            svg.line(px, up.inside(p.y.lo), px, up.inside(p.y.hi), f"{css} whisker")
            svg.parts.append(marker(SHAPES[index], px, py, 5, f"{css} solid"))
            if p.label:
                svg.text(px + 9, py + 4, p.label, f"{css} name")
    key(svg, list(series), left)
    return standalone(svg)


def standalone(svg: Svg) -> str:
    """The picture as a file of its own, in the colours of a run's page."""
    page = (Path(unlearn_suite.report.__file__).parent / "page.css").read_text(encoding="utf-8")
    colours = page.split("* {", 1)[0]
    rules = [line for line in page.splitlines() if re.match(r"svg [.t]|\.s\d", line)]
    css = "\n".join([colours.strip(), *rules, *OWN, ""])
    head, body = svg.render().split("><", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>\n{css}</style>\n<' + body.replace("><", ">\n<") + "\n"


def cross_over(page: str) -> str:
    (first, *_) = tables(page, TITLE)
    read = {problem: {row[""]: value(row[problem]) for row in first} for problem in PROBLEMS}
    series = {p: {objective: u for objective, u in found.items() if u} for p, found in read.items()}
    title = "The cross-over: U of seven objectives on four problems"
    return ladder("cross-over", title, "unified score U, 95 % interval", [row[""] for row in first], series)


def front(page: str) -> str:
    """Both tables of the section: a sweep for each objective, whose name begins the first of its rows, each point under
    its weight; directions, of which the ones that fall behind are named."""
    weights, directions = tables(page, "### A front over the retain weight")
    series: dict[str, list[Point]] = {}
    for row in weights:
        first = row[""].split(", ")[0]
        if first in ("cosine-rmu", "adaptive-rmu"):
            series[first] = points = []
        put(points, row["R"], row["F"], re.findall(r"\d[\d.]*", row[""])[0])
    _, *others = directions
    series["other directions, weight 40"] = points = []
    for row in others:
        name = row[""].split(" (")[0]
        put(points, row["R"], row["F"], name if float(row["F"].split()[0]) < 0.85 else "")
    return cloud("front", "Forgotten against retained", ("R, retained", "F, forgotten"), series, (0.7, 1))


def relearning(page: str) -> str:
    """Both tables of the section: its rows are settings, in the second of them with and without meta-learning."""
    first, second, *_ = tables(page, "## What relearning brings back")
    series: dict[str, list[Point]] = {
        f"{loss}{meta}": [] for loss in ("cosine", "squared error") for meta in ("", ", meta-learned")
    }
    for row in first:
        put(series[row[""]], row["R"], row["back at worst"])
    for row in second:
        loss = re.split(r",| \(", row[""])[0]
        put(series[loss], row["R"], row["back at worst"])
        put(series[f"{loss}, meta-learned"], row["R, meta-learned"], row["back at worst, meta-learned"])
    axes = ("R, retained", "share of the forgotten that relearning brings back")
    return cloud("relearning", "What relearning brings back, by what was kept", axes, series, (0, 0.62))


def toxicity(page: str) -> str:
    """Fall against broken text, of the arms of three sections and of the cross-over."""
    fluency, *_ = tables(page, "### Does it break the text?")
    ablation, *_ = tables(page, "### One change at a time")
    losses, *_ = tables(page, "### Each loss with settings of its own")
    objectives, *_ = tables(page, "## Toxicity: stop insults, three seeds")
    names = ("hinge alone", "wrong directions", "other losses", "with benign text", "cross-over")
    series: dict[str, list[Point]] = {name: [] for name in names}
    for row in ablation:
        kind = {"P2": 2, "P3": 2, "P4": 2, "P5": 2, "P6": 2, "ra": 1, "di": int("shuffled" in row[""])}
        put(series[names[kind.get(row[""][:2], 0)]], row["fall"], row["own text"])
    onwards = False  # from the first "the same, ce_weight" on, every row builds on it
    for row in fluency:
        told = "ce_weight" in row[""]
        onwards |= told and row[""].startswith("the same")
        put(series["with benign text" if told or onwards else "hinge alone"], row["fall"], row["change"])
    for row in losses:
        if not row[""].startswith("P1"):
            put(series["other losses"], row["fall"], row["change"])
    base, *others = objectives
    for row in others:
        fall = 100 * (1 - float(row["mean toxicity"]) / float(base["mean toxicity"]))
        change = 100 * (float(row["own text"]) / float(base["own text"]) - 1)
        put(series["cross-over"], f"{fall:.0f}", f"{change:.0f}", row[""] if fall > HALF else "")
    axes = ("fall of mean toxicity, %", "own text: rise of its perplexity under the untouched model, %")
    return cloud("toxicity", "What lowers toxicity, and what it does to the text", axes, series, (-50, 90))


def put(points: list[Point], x: str, y: str, label: str = "") -> None:
    """A point, where the table has both."""
    across_, up = value(x), value(y)
    if across_ is not None and up is not None:
        points.append(Point(across_, up, label))


PLOTS = {
    "paper-cross-over": cross_over,
    "paper-front": front,
    "paper-relearning": relearning,
    "paper-toxicity": toxicity,
}


def draw(page: str) -> dict[str, str]:
    """{file name: SVG} of all plots."""
    return {f"{name}.svg": make(page) for name, make in PLOTS.items()}


if __name__ == "__main__":
    (HERE / "plots").mkdir(exist_ok=True)
    for name, text in draw(PAGE.read_text(encoding="utf-8")).items():
        (HERE / "plots" / name).write_text(text, encoding="utf-8")
