"""Which setting of each swept arm to take: the one that forgets most among those that retain enough.

    python docs/results/choose_settings.py runs/paper-tuning [--gate 0.97]

Reads results/summary.json of a run. F and R are those of docs/explanation/scores.md. When no setting of an arm retains
the share `--gate`, the one that retains most is taken and marked.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

Score = dict[str, Any]


def chosen(scores: list[Score], gate: float) -> tuple[Score, bool]:
    """The setting to take, and whether it retains enough."""
    enough = [s for s in scores if s["R"]["mean"] >= gate]
    if enough:
        return max(enough, key=lambda s: s["F"]["mean"]), True
    return max(scores, key=lambda s: s["R"]["mean"]), False


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--gate", type=float, default=0.97, help="share that must be retained")
    args = parser.parse_args()
    found: dict[tuple[str, str], list[Score]] = {}
    for score in json.loads((args.run / "results/summary.json").read_text(encoding="utf-8"))["scores"]:
        found.setdefault((score["problem"], score["family"] or score["arm"]), []).append(score)
    print("| problem | arm | F | R | setting |\n| --- | --- | ---: | ---: | --- |")
    for (problem, _), scores in found.items():
        best, enough = chosen(scores, args.gate)
        for score in scores:
            mark = ("taken" if enough else "taken, retains too little") if score is best else ""
            print(f"| {problem} | {score['arm']} | {score['F']['mean']:.3f} | {score['R']['mean']:.3f} | {mark} |")


if __name__ == "__main__":
    main()
