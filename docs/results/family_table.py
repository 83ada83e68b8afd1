"""The tables of family-in-small.md, from the folder of a run: one for each problem, an arm a column.

python docs/results/family_table.py runs/family-in-small
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ARMS = ("base", "taught", "default", "oracle", "chance")


def main(run: Path) -> None:
    results = json.loads((run / "results/summary.json").read_text(encoding="utf-8"))["results"]
    found = {(r["problem"], r["metric"], r["value"], r["arm"]): r for r in results}
    for problem, shown in shown_values(run).items():
        arms = [arm for arm in ARMS if any(key[0] == problem and key[3] == arm for key in found)]
        print(f"\n## {problem}\n\n| | {' | '.join(arms)} |\n| --- |{' --- |' * len(arms)}")
        for metric, value, want in shown:
            row = [number(found.get((problem, metric, value, arm))) for arm in arms]
            if any(row):
                print(f"| {metric}, {value} ({want}) | {' | '.join(row)} |")


def shown_values(run: Path) -> dict[str, list[tuple[str, str, str]]]:
    """problem -> (entry, value, want) of all values that its table shows, in the order of the plan."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    lock = json.loads((run / "plan.lock.json").read_text(encoding="utf-8"))
    for problem in lock["problems"]:
        found[problem["name"]] = [(m["name"], v, m["want"]) for m in problem["metrics"] for v in m["show"]]
    return found


def number(result: Mapping[str, Any] | None) -> str:
    if result is None or result["mean"] is None:
        return ""
    digits = 1 if abs(result["mean"]) >= 10 else 3
    spread = "" if result["lo"] is None else f" ({result['lo']:.{digits}f} to {result['hi']:.{digits}f})"
    return f"{result['mean']:.{digits}f}{spread}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
