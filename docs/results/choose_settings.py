"""Which setting of each swept arm to take: the one that forgets most among those that retain enough.

    python docs/results/choose_settings.py runs/paper-tuning [--gate 0.97] [--into PLAN | --presets NAME]

Reads results/summary.json of a run. F and R are those of docs/explanation/scores.md. When no setting of an arm retains
the share `--gate`, the one that retains most is taken and marked. `--into` prints PLAN, a plan with other data, with
the arms of the run's plan at the settings taken; `--presets` prints those that retain enough as presets of their
objectives, called NAME, or NAME-ARM where an arm has another name than its objective.
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
from unlearn_suite.plan.text import read_yaml

Score = dict[str, Any]
Arm = dict[str, Any]


def chosen(scores: list[Score], gate: float) -> tuple[Score, bool]:
    """The setting to take, and whether it retains enough."""
    enough = [s for s in scores if s["R"]["mean"] >= gate]
    if enough:
        return max(enough, key=lambda s: s["F"]["mean"]), True
    return max(scores, key=lambda s: s["R"]["mean"]), False


def table(found: dict[tuple[str, str], list[Score]], gate: float) -> Iterator[str]:
    """The lines of a Markdown table: an arm a row, with F and R of its settings, the one that is taken in bold."""
    yield "| problem | arm | settings (F, R) | |\n| --- | --- | --- | --- |"
    for (problem, family), scores in found.items():
        best, enough = chosen(scores, gate)
        settings = ", ".join(f"**{words_of(s, family)}**" if s is best else words_of(s, family) for s in scores)
        yield f"| {problem} | {family} | {settings} | {'' if enough else 'none retains enough'} |"


def words_of(score: Score, family: str) -> str:
    """A setting as its label in the arm, with its F and R."""
    label = score["arm"].removeprefix(f"{family}.")
    return f"{label} ({score['F']['mean']:.2f}, {score['R']['mean']:.2f})"


def plan_with(text: str, arms: Collection[str]) -> str:
    """A plan's text with other lines under `arms`."""
    lines = "".join(f"  {arm}\n" for arm in arms)
    return re.sub(r"(?m)^arms:\n(?:(?:[ #].*)?\n)*", lambda _: f"arms:\n{lines}", text)


def settled(plan: Path, taken: dict[str, bool]) -> Iterator[tuple[str, Arm | None, str, list[str]]]:
    """(name, arm, label, searched paths) of each arm of a plan: as it is, or at the point of its sweep that is taken.

    `taken`: {label: retains enough}. The arm is None where no point of its sweep has results.
    """
    faults = Faults()
    root = read_yaml(plan, faults)
    assert root is not None, faults
    for name, arm in root.map["arms"].map.items():
        sweep = arm.under("sweep")
        if sweep is None:
            yield name, arm.plain(), name, []
            continue
        own = {key: child for key, child in arm.map.items() if key != "sweep"}
        points = [point for point in sweep_points(name, sweep.map) if point[0] in taken]
        if not points:
            yield name, None, name, []
        for label, values in points:
            for path, value in values.items():
                stages = changed(own["stages"], path.split("."), value, value.at, path, faults)
                assert stages is not None, faults
                own["stages"] = stages
            yield name, {key: child.plain() for key, child in own.items()}, label, list(sweep.map)


def arms_at(plan: Path, taken: dict[str, bool]) -> Iterator[str]:
    """Each arm of a plan in one line."""
    for name, arm, label, _ in settled(plan, taken):
        if arm is None:
            yield f"# {name}: no setting has results"
        else:
            yield f"{name}: {words(arm)}" + ("" if taken.get(label, True) else "  # no setting retained enough")


def presets_at(plan: Path, taken: dict[str, bool], called: str) -> Iterator[str]:
    """Lines of presets/OBJECTIVE.yaml for each swept arm that retains enough."""
    for name, arm, label, paths in settled(plan, taken):
        if arm is None or not paths or not taken[label]:
            continue
        (stage,) = arm["stages"]
        use, options = stage.pop("use"), stage.pop("with", {})
        yield f"# presets/{use}.yaml\n{called if name == use else f'{called}-{name}'}:"
        yield f"  summary: {name} as {plan.parent.parent.name} chose it\n  tried: PAGE\n  stage:"
        for fields, indent, prefix in ((stage, "    ", "0."), (options, "      ", "0.with.")):
            yield from ["    with:"] if options and fields is options else []
            for key, value in fields.items():
                source = "searched" if prefix + key in paths else "tried there"
                yield f"{indent}{key}: {words(value)}  # {source}"


def words(value: Any) -> str:
    """A value in YAML, in one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).removesuffix("...\n").strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--gate", type=float, default=0.97, help="share that must be retained")
    parser.add_argument("--into", type=Path, metavar="PLAN", help="print this plan with the settings taken")
    parser.add_argument("--presets", metavar="NAME", help="print the settings taken as presets of this name")
    args = parser.parse_args()
    found: dict[tuple[str, str], list[Score]] = {}
    for score in json.loads((args.run / "results/summary.json").read_text(encoding="utf-8"))["scores"]:
        found.setdefault((score["problem"], score["family"] or score["arm"]), []).append(score)
    if args.into is None and args.presets is None:
        print(*table(found, args.gate), sep="\n")
        return
    if len({problem for problem, _ in found}) != 1:
        parser.error("--into and --presets take a run of one problem")
    taken = {best["arm"]: enough for best, enough in (chosen(scores, args.gate) for scores in found.values())}
    latest = max((args.run / "plans").glob("*.yaml"))
    if args.presets is not None:
        print(*presets_at(latest, taken, args.presets), sep="\n")
        return
    print(plan_with(args.into.read_text(encoding="utf-8"), list(arms_at(latest, taken))), end="")


if __name__ == "__main__":
    main()
