"""The tables of baselines-in-small.md, from the folders of the reported runs: one for each problem, an arm a row.

    python docs/results/baselines_table.py [--gate 0.95] [--beside METRIC.VALUE] runs/baselines-knowledge ...

F, R and U are those of docs/explanation/scores.md, means over the seeds with the intervals of the summary; `--beside`
adds a column with another value. Arms that retain the share `--gate` come first, by F; then the others. Cost is that of
one cell's training, the mean over the seeds: what the suite counted and measured (docs/reference/stage-report.md).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

Score = Mapping[str, Any]


def table(run: Path, gate: float, beside: Sequence[str] = ()) -> Iterator[str]:
    """The lines of one problem's table."""
    summary = json.loads((run / "results/summary.json").read_text(encoding="utf-8"))
    cells: dict[str, list[Mapping[str, Any]]] = {}
    for cell in summary["cells"]:
        cells.setdefault(cell["arm"], []).append(cell)
    values = {(r["arm"], f"{r['metric']}.{r['value']}"): r for r in summary["results"]}
    yield "| " + " | ".join(["arm", "forgets F", "retains R", "both U", *beside, "TFLOP", "GB", "minutes"]) + " |"
    yield "| --- | --- | --- | --- |" + " --- |" * len(beside) + " ---: | ---: | ---: |"
    if beside:
        yield "| base | 0 | 1 | 0 | " + " | ".join(number(values.get(("base", name))) for name in beside) + " | | | |"
    scores = sorted(summary["scores"], key=lambda score: (score["R"]["mean"] < gate, -score["F"]["mean"]))
    first_below = next((score["arm"] for score in scores if score["R"]["mean"] < gate), None)
    for score in scores:
        arm = score["arm"]
        if arm == first_below:
            yield f"| *retain less than {gate:g}* |" + " |" * (6 + len(beside))
        columns = [*(number(score[key]) for key in "FRU"), *(number(values.get((arm, name))) for name in beside)]
        yield f"| {' | '.join([arm, *columns, *cost(cells[arm])])} |"


def cost(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """TFLOP, GB at the peak, and minutes of the training of one cell."""
    stages = [list(cell["cost"].values()) for cell in cells if cell["cost"]]
    if not stages:
        return ["", "", ""]
    flops = fmean(sum(stage["flops"] or 0 for stage in one) for one in stages)
    peak = fmean(max(max(stage["peak_bytes"].values()) for stage in one) for one in stages)
    seconds = fmean(sum(sum(stage["seconds"].values()) for stage in one) for one in stages)
    return [f"{flops / 1e12:.1f}", f"{peak / 1e9:.1f}", f"{seconds / 60:.1f}"]


def number(score: Mapping[str, Any] | None) -> str:
    """To two places, to one from 10 on; with its interval if there is one."""
    if score is None:
        return ""
    places = 2 if abs(score["mean"]) < 10 else 1
    mean, lo, hi = (None if score[key] is None else f"{score[key]:.{places}f}" for key in ("mean", "lo", "hi"))
    return f"{mean}" if lo is None else f"{mean} ({lo} to {hi})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs of one problem each")
    parser.add_argument("--gate", type=float, default=0.95, help="share that must be retained")
    parser.add_argument("--beside", action="append", default=[], metavar="METRIC.VALUE", help="one more column")
    args = parser.parse_args()
    for run in args.runs:
        print(f"## {run.name}\n", *table(run, args.gate, args.beside), sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
