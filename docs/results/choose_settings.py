"""Which setting of each swept arm to take: the one that forgets most among those that retain enough.

    python docs/results/choose_settings.py runs/paper-tuning [--gate 0.97] [--into PLAN]

Reads results/summary.json of a run. F and R are those of docs/explanation/scores.md. When no setting of an arm retains
the share `--gate`, the one that retains most is taken and marked. `--into` prints PLAN, a plan with other data, with
the arms of the run's plan at the settings taken.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from unlearn_suite.plan.changes import changed
from unlearn_suite.plan.faults import Faults
from unlearn_suite.plan.sweep import sweep_points
from unlearn_suite.plan.text import Node, read_yaml

Score = dict[str, Any]


def chosen(scores: list[Score], gate: float) -> tuple[Score, bool]:
    """The setting to take, and whether it retains enough."""
    enough = [s for s in scores if s["R"]["mean"] >= gate]
    if enough:
        return max(enough, key=lambda s: s["F"]["mean"]), True
    return max(scores, key=lambda s: s["R"]["mean"]), False


def table(found: dict[tuple[str, str], list[Score]], gate: float) -> Iterator[str]:
    """The lines of a Markdown table of all settings."""
    yield "| problem | arm | F | R | setting |\n| --- | --- | ---: | ---: | --- |"
    for (problem, _), scores in found.items():
        best, enough = chosen(scores, gate)
        for score in scores:
            mark = ("taken" if enough else "taken, retains too little") if score is best else ""
            yield f"| {problem} | {score['arm']} | {score['F']['mean']:.3f} | {score['R']['mean']:.3f} | {mark} |"


def plan_with(text: str, arms: Collection[str]) -> str:
    """A plan's text with other lines under `arms`."""
    lines = "".join(f"  {arm}\n" for arm in arms)
    return re.sub(r"(?m)^arms:\n(?:(?:[ #].*)?\n)*", lambda _: f"arms:\n{lines}", text)


def arms_at(plan: Path, taken: dict[str, bool]) -> Iterator[str]:
    """Each arm of a plan in one line: as it is, or at the point of its sweep that is taken ({name: retains enough})."""
    faults = Faults()
    root = read_yaml(plan, faults)
    assert root is not None, faults
    for name, arm in root.map["arms"].map.items():
        sweep = arm.under("sweep")
        if sweep is None:
            yield f"{name}: {words(arm.map)}"
            continue
        own = {key: child for key, child in arm.map.items() if key != "sweep"}
        points = [point for point in sweep_points(name, sweep.map) if point[0] in taken]
        if not points:
            yield f"# {name}: no setting has results"
        for label, values in points:
            for path, value in values.items():
                stages = changed(own["stages"], path.split("."), value, value.at, path, faults)
                assert stages is not None, faults
                own["stages"] = stages
            yield f"{name}: {words(own)}" + ("" if taken[label] else "  # no setting retained enough")


def words(arm: dict[str, Node]) -> str:
    """An arm in YAML, in one line."""
    plain = {key: child.plain() for key, child in arm.items()}
    return yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=10_000).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--gate", type=float, default=0.97, help="share that must be retained")
    parser.add_argument("--into", type=Path, metavar="PLAN", help="print this plan with the settings taken")
    args = parser.parse_args()
    found: dict[tuple[str, str], list[Score]] = {}
    for score in json.loads((args.run / "results/summary.json").read_text(encoding="utf-8"))["scores"]:
        found.setdefault((score["problem"], score["family"] or score["arm"]), []).append(score)
    if args.into is None:
        print(*table(found, args.gate), sep="\n")
        return
    if len({problem for problem, _ in found}) != 1:
        parser.error("--into takes a run of one problem")
    taken = {best["arm"]: enough for best, enough in (chosen(scores, args.gate) for scores in found.values())}
    latest = max((args.run / "plans").glob("*.yaml"))
    print(plan_with(args.into.read_text(encoding="utf-8"), list(arms_at(latest, taken))), end="")


if __name__ == "__main__":
    main()
