"""Does meta-learning make forgetting last, in a toy? The tables of toy-relearning.md, from start to end.

    python docs/results/toy_relearning.py OUT [--seeds 0 1 2 3 4] [--facts 60]

For each seed it draws made-up facts ("river bak: nul", "hill dof: pem") and a random model of 0.2M parameters, puts
both into OUT/seed<N>, and runs docs/plans/toy-relearning.yaml there with that seed; what is done is not done again.
Printed are how much of the facts is known before and after, and how many steps of an attacker bring half of it back.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml
from scipy.stats import t as student

from unlearn_suite.testing.run_plan import run_plan
from unlearn_suite.testing.tiny import save_tiny

PLAN = Path(__file__).parents[1] / "plans/toy-relearning.yaml"
SIZES: Mapping[str, Any] = {"num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 192}
CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"
SPLITS = 5
"""the attacker is given all but one of these parts of what was forgotten, and asked for that one"""
READ = {"retain": "retain error", "cos_forget": "cosine with the target", "rho_forget": "norm"}
LAST = 10
"""steps at the end of a training that are averaged"""
ATTACKS = {"others": "other rivers", "same": "the same rivers"}

Fact = Mapping[str, str]


@dataclass(frozen=True)
class Half:
    """When half of what was lost is back; `step` None: not within the `last` step that was read."""

    step: float | None
    last: int

    @property
    def least(self) -> float:
        return self.last if self.step is None else self.step

    def __str__(self) -> str:
        return f"> {self.last}" if self.step is None else f"{self.step:.3g}"


@dataclass(frozen=True)
class Outcome:
    """One seed. `recall`: (arm, entry) -> share of facts known, of the taught model as the arm `base`; `half`:
    (attack, arm) -> steps at the worst rate, where anything was lost; `rates`: (attack, arm, rate) -> steps;
    `end`: arm -> readings of its last steps, by `READ`."""

    seed: int
    recall: Mapping[tuple[str, str], float]
    half: Mapping[tuple[str, str], Half]
    rates: Mapping[tuple[str, str, str], Half] = field(default_factory=dict)
    end: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def facts(seed: int, count: int) -> dict[str, list[Fact]]:
    """Role of the plan -> its facts. No word occurs twice, so nothing can be told from another fact."""
    draw = random.Random(seed)
    words = draw.sample([a + b + c for a in CONSONANTS for b in VOWELS for c in CONSONANTS], 4 * count)
    pairs = list(zip(words[::2], words[1::2], strict=True))
    rivers = [fact("river", *pair) for pair in pairs[:count]]
    hills = [fact("hill", *pair) for pair in pairs[count:]]
    apart = rivers[::SPLITS]
    return {"forget": rivers, "retain": hills, "fifth": apart, "attack": [r for r in rivers if r not in apart]}


def fact(kind: str, key: str, value: str) -> Fact:
    return {"id": f"{kind} {key}", "prompt": f"{kind} {key}:", "text": f" {value}"}


def run(folder: Path, seed: int, count: int, plan: str | None = None) -> Outcome:
    """Everything of one seed, in `folder`. `plan`: its text (none: that of the file)."""
    data = folder / "data/toy"
    data.mkdir(parents=True, exist_ok=True)
    for role, rows in facts(seed, count).items():
        (data / f"{role}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if not (data / "model").exists():
        save_tiny(data / "model", seed=seed, **SIZES)
    told = yaml.safe_load(PLAN.read_text(encoding="utf-8") if plan is None else plan)
    ran = run_plan(yaml.safe_dump({**told, "seeds": [seed]}, sort_keys=False), folder)
    found = outcome(seed, json.loads((ran.folder / "results/summary.json").read_text(encoding="utf-8")))
    return replace(found, end=dict(ends(ran.folder)))


def outcome(seed: int, summary: Mapping[str, Any]) -> Outcome:
    recall = {(r["arm"], r["metric"]): r["mean"] for r in summary["results"] if r["value"] == "exact"}
    half = {
        (line["attack"], line["arm"]): Half(step, max(reading["at"] for reading in line["readings"]))
        for line in summary["attacks"]
        for step in line["steps_to_half"]
    }
    rates = {
        (line["attack"], line["arm"], rate): crossing(line, rate)
        for line in summary["attacks"]
        for rate in dict.fromkeys(reading["strength"] for reading in line["readings"])
    }
    return Outcome(seed, recall, half, rates)


def crossing(line: Mapping[str, Any], rate: str) -> Half:
    """The first step, on a straight line between two readings at a rate, at which half of the loss is back."""
    middle = (line["base"]["mean"] + line["unlearned"]["mean"]) / 2
    path = [(0, line["unlearned"]["mean"])]
    path += [(r["at"], r["value"]["mean"]) for r in line["readings"] if r["strength"] == rate]
    for (x0, y0), (x1, y1) in pairwise(path):
        if y1 >= middle > y0:
            return Half(x0 + (middle - y0) / (y1 - y0) * (x1 - x0), path[-1][0])
    return Half(None, path[-1][0])


def ends(run: Path) -> Iterator[tuple[str, Mapping[str, float]]]:
    """What the unlearning arms read on their training batches in the end."""
    for path in sorted(run.glob("cells/*/scalars.jsonl")):
        rows = [json.loads(line)["scalars"] for line in path.read_text(encoding="utf-8").splitlines()[-LAST:]]
        if READ.keys() <= rows[-1].keys():
            arm = json.loads((path.parent / "cell.json").read_text(encoding="utf-8"))["arm"]
            yield arm, {name: fmean(row[name] for row in rows) for name in READ}


def recall_table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The share of the facts that is known: the mean over the seeds, and each."""
    yield "| | forget | retain | forget, each seed | retain, each seed |\n| --- | ---: | ---: | --- | --- |"
    for arm in arms(outcomes):
        columns = [[o.recall[arm, entry] for o in outcomes] for entry in ("forget", "retain")]
        means = [f"{fmean(column):.3f}" for column in columns]
        each = [", ".join(f"{value:.2f}" for value in column) for column in columns]
        yield f"| {'taught' if arm == 'base' else arm} | {' | '.join(means + each)} |"


def half_table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Steps to half by seed. A seed that is not won back counts with the last step read: the mean is a lower bound."""
    seeds = " | ".join(f"seed {o.seed}" for o in outcomes)
    yield f"| attacker's facts | arm | {seeds} | mean |\n| --- | --- |{' ---: |' * (len(outcomes) + 1)}"
    for attack, told in ATTACKS.items():
        for arm in arms(outcomes)[1:]:
            found = [o.half.get((attack, arm)) for o in outcomes]
            known = [half for half in found if half is not None]
            mean = f"{fmean(half.least for half in known):.3g}" if known else "–"
            sign = "≥ " if any(half.step is None for half in known) else ""
            yield f"| {told} | {arm} | {' | '.join(str(half or '–') for half in found)} | {sign}{mean} |"


def end_table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Means over the seeds, of forget text but for the retain error."""
    yield f"| | {' | '.join(READ.values())} |\n| --- |{' ---: |' * len(READ)}"
    for arm in arms(outcomes):
        found = [o.end[arm] for o in outcomes if arm in o.end]
        if found:
            yield f"| {arm} | {' | '.join(f'{fmean(one[name] for one in found):.3g}' for name in READ)} |"


def rate_table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """By rate, what meta takes beside the others; a seed that is not won back counts with the last step read."""
    yield "| attacker's facts | rate | meta | minus none | minus idle |\n| --- | --- | ---: | --- | --- |"
    for attack, told in ATTACKS.items():
        rates = dict.fromkeys(rate for o in outcomes for name, _, rate in o.rates if name == attack)
        for rate in ("worst", *rates):
            steps = {arm: [half_of(o, attack, arm, rate) for o in outcomes] for arm in ("meta", "none", "idle")}
            known = [half.least for half in steps["meta"] if half]
            if known:
                beside = (beside_text(steps["meta"], steps[other]) for other in ("none", "idle"))
                yield f"| {told} | {rate} | {fmean(known):.3g} | {' | '.join(beside)} |"


def half_of(outcome: Outcome, attack: str, arm: str, rate: str) -> Half | None:
    return outcome.half.get((attack, arm)) if rate == "worst" else outcome.rates.get((attack, arm, rate))


def beside_text(meta: Sequence[Half | None], other: Sequence[Half | None]) -> str:
    """The mean of the differences, and on how many seeds meta takes more steps."""
    moved = [x.least - y.least for x, y in zip(meta, other, strict=True) if x and y]
    more = sum(x > 0 for x in moved)
    return f"{fmean(moved):+.2g}{interval(moved)}, more on {more} of {len(moved)}" if moved else "–"


def interval(values: Sequence[float]) -> str:
    """95 %, of the mean."""
    if len(values) < 2:
        return ""
    mean = fmean(values)
    reach = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f" ({mean - reach:+.2g} to {mean + reach:+.2g})"


def arms(outcomes: Sequence[Outcome]) -> list[str]:
    """In the order of the plan, the taught model first."""
    return list(dict.fromkeys(arm for o in outcomes for arm, _ in sorted(o.recall, key=lambda key: key[0] != "base")))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the runs, a folder in it for each seed")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="each with facts and a model of its own"
    )
    parser.add_argument("--facts", type=int, default=60, help="rivers, and as many hills")
    args = parser.parse_args()
    outcomes = []
    for seed in args.seeds:
        print(f"seed {seed} ...", file=sys.stderr, flush=True)
        outcomes.append(run(args.out / f"seed{seed}", seed, args.facts))
    for part in (recall_table, end_table, half_table, rate_table):
        print(*part(outcomes), sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
