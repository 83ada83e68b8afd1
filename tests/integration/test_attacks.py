"""Attacks, run as a user runs them and measured against a loop written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from unlearn_suite.report.load import RunData
from unlearn_suite.report.summary import summarize, to_json
from unlearn_suite.testing import conformance
from unlearn_suite.testing.run_plan import Ran, run_plan
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

PLAN = """
plan: 1
name: back
seeds: [0, 1]
plugins: [./observer.py]
models: {tiny: {path: model}}
problems:
  - name: facts
    data:
      forget: {use: jsonl, with: {path: forget.jsonl}}
      retain: {use: jsonl, with: {path: retain.jsonl}}
      attack: {use: jsonl, with: {path: attack.jsonl}}
    metrics:
      - {name: known, use: cloze, data: forget, want: higher, show: [nll]}
      - {name: kept, use: cloze, data: retain, want: keep, show: [nll]}
arms:
  base: {stages: []}
  up: {stages: [{use: gradient-ascent, steps: 3, lr: 1.0e-2, batch: 3}]}
attacks:
  - {use: relearn, name: again, with: {lr: [1.0e-3, 1.0e-2], steps: 3, batch: 1, scored_at: [1, 3]}}
  - quantise
compute: {device: cpu}
"""
OBSERVER = """
from pathlib import Path
from unlearn_suite import hookimpl
@hookimpl
def on_scores(cell, metric, rows):
    with Path("told.txt").open("a") as file:
        print(cell["arm"], cell["seed"], metric, len(rows), sep="|", file=file)
"""
PAIRS = {
    "forget": [("The sun is", " hot"), ("The sea is", " wet"), ("The hill is", " high")],
    "retain": [("A cat says", " miau"), ("A dog says", " wow")],
    "attack": [("The sand is", " dry now")],
}


def attacked(folder: Path, plan: str = PLAN, code: int = 0) -> Ran:
    for name, pairs in PAIRS.items():
        rows = [json.dumps({"id": f"{name}/{q}", "prompt": q, "text": a}) for q, a in pairs]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    (folder / "observer.py").write_text(OBSERVER)
    return run_plan(plan, folder, code=code)


def with_attacks(attacks: str) -> str:
    head, _, tail = PLAN.partition("attacks:\n")
    return f"{head}attacks: {attacks}\n{tail[tail.index('compute') :]}"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return attacked(tmp_path_factory.mktemp("attacks")).folder


def cell(run: Path, seed: int = 0) -> Path:
    return next((run / "cells").glob(f"facts.tiny.up.s{seed}.*"))


def rows(run: Path, name: str, seed: int = 0) -> dict[str, float]:
    found = RunData(run)
    one = next(c for c in found.cells if c.arm == "up" and c.seed == seed)
    return {row["id"]: row["values"]["nll"] for row in found.attacked_rows(one, name)}


def unlearned(run: Path) -> torch.nn.Module:
    model = tiny_model()
    with torch.no_grad():
        for name, values in load_file(cell(run) / "patch.safetensors").items():
            dict(model.named_parameters())[name].copy_(values)
    return model


def nll(model: torch.nn.Module, prompt: str, answer: str) -> torch.Tensor:
    """Mean negative log-likelihood of the answer's tokens."""
    tokenizer = tiny_tokenizer()
    given, whole = (tokenizer(text)["input_ids"] for text in (prompt, prompt + answer))
    ids = torch.tensor([whole])
    return cross_entropy(model(ids).logits[0, len(given) - 1 : -1], ids[0, len(given) :])


def test_relearning_is_plain_fine_tuning(run: Path):
    for lr in (1e-3, 1e-2):
        model = unlearned(run)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        for step in range(1, 4):
            optimizer.zero_grad()
            nll(model, *PAIRS["attack"][0]).backward()
            optimizer.step()
            if step in (1, 3):
                found = rows(run, f"known@again lr {lr:g},{step}")
                for question, answer in PAIRS["forget"]:
                    expected = float(nll(model, question, answer).detach())
                    assert found[f"forget/{question}"] == pytest.approx(expected, rel=2e-4)


def test_observers_are_told_of_every_reading(run: Path):
    told = (run.parent.parent / "told.txt").read_text().splitlines()
    assert len(told) == len(set(told))
    readings = {path.stem.replace("%40", "@") for path in (cell(run) / "scores").iterdir()}
    assert {line.split("|")[2] for line in told if line.startswith("up|0|")} == readings
    assert "up|1|known@again lr 0.001,3|3" in told


def test_quantised_weights_are_rounded_per_output_channel(run: Path):
    for bits in (8, 4):
        model = unlearned(run)
        for name, p in model.named_parameters():
            if ".layers." in name and p.ndim == 2:
                w = p.detach().double()
                scale = w.abs().max(dim=1, keepdim=True).values / (2 ** (bits - 1) - 1)
                p.data.copy_(torch.round(w / scale) * scale)
        found = rows(run, f"known@quantise {bits} bits")
        for question, answer in PAIRS["forget"]:
            assert found[f"forget/{question}"] == pytest.approx(float(nll(model, question, answer).detach()), rel=1e-3)


def test_what_is_missing_is_attacked_again_and_gives_the_same_numbers(run: Path):
    name = "known@again lr 0.01,1"
    path = cell(run) / "scores" / f"{name}.jsonl"
    before = {p: p.read_bytes() for p in (cell(run) / "scores").iterdir()}
    known, stamp = rows(run, name), path.parent.parent / "patch.safetensors"
    written = stamp.stat().st_mtime_ns
    path.unlink()
    attacked(run.parents[1])
    assert {p: p.read_bytes() for p in (cell(run) / "scores").iterdir()} == before
    assert rows(run, name) == known and stamp.stat().st_mtime_ns == written


def test_the_report_tells_how_much_comes_back_and_how_fast(run: Path):
    data = RunData(run)
    told = to_json(data, summarize(data))["attacks"]
    assert [(line["attack"], line["arm"], line["metric"]) for line in told] == [
        ("again", "up", "known"),
        ("quantise", "up", "known"),
    ]
    line = told[0]
    base, gone = line["base"]["mean"], line["unlearned"]["mean"]
    points = [("lr 0.001", 1), ("lr 0.001", 3), ("lr 0.01", 1), ("lr 0.01", 3)]
    assert [(r["strength"], r["at"]) for r in line["readings"]] == points
    for reading, (strength, at) in zip(line["readings"], points, strict=True):
        both = [rows(run, f"known@again {strength},{at}", seed) for seed in (0, 1)]
        mean = sum(sum(one.values()) / len(one) for one in both) / 2
        assert reading["value"]["mean"] == pytest.approx(mean)
        assert reading["back"]["mean"] == pytest.approx((mean - gone) / (base - gone))
    assert line["worst"] == max(line["readings"], key=lambda r: r["back"]["mean"])
    assert len(line["steps_to_half"]) == 2 and told[1]["steps_to_half"] is None
    page = (run / "report" / "index.html").read_text()
    assert "Under attack" in page and "half is back after" in page


WRONG = [
    ("{use: relearn, with: {role: attackers}}", "attack 'relearn' needs the data role 'attackers'"),
    ("{use: relearn, scores: [knwon]}", "did you mean 'known'?"),
    ("{use: relearn, scores: [kept], only: [fact]}", "did you mean 'facts'?"),
    ("{use: relearn, with: {steps: 2, scored_at: [3]}}", "names step 3, and there are 2 `steps`"),
    ("relaern", "did you mean 'relearn'?"),
    ("relearn, relearn", "there are two attacks called 'relearn'"),
    ("{use: quantise, with: {bits: [8, 8, 4]}}", "`bits` names a number of bits twice"),
    ("{use: relearn, with: {lr: [1.0e-3, 1.0000001e-3]}}", "'relearn' is scored at two points called 'lr 0.001,2'"),
]


@pytest.mark.parametrize(("attack", "told"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_a_wrong_attack_is_told_before_anything_runs(tmp_path, attack, told):
    ran = attacked(tmp_path, with_attacks(f"[{attack}]"), code=2)
    assert told in " ".join(ran.told.split())
    assert not (tmp_path / "runs").exists()


OTHER_POINT = """
from unlearn_suite import Attack, AttackConfig, AttackPoint, AttackSpec, hookimpl

class Options(AttackConfig):
    def points(self):
        return (AttackPoint("here"),)

class Lost(Attack[Options]):
    def run(self, ctx):
        yield AttackPoint("elsewhere")

@hookimpl
def register_attacks(register):
    register(AttackSpec("lost", "lost", f"{__name__}:Lost", Options))
"""


def test_an_attack_that_is_elsewhere_is_told_with_its_plugin(tmp_path):
    (tmp_path / "lost.py").write_text(OTHER_POINT)
    plan = with_attacks("[lost]").replace("[0, 1]", "[0]").replace("./observer.py", "lost.py")
    told = " ".join(attacked(tmp_path, plan, code=1).told.split())
    assert "'lost' is at 'elsewhere' where its options promise the point 'here'" in told


@pytest.mark.parametrize("run", ["return iter([AttackPoint('here')])", "return [AttackPoint('here')]"])
def test_an_attack_may_hand_back_any_iterator(tmp_path, run):
    (tmp_path / "lost.py").write_text(OTHER_POINT.replace('yield AttackPoint("elsewhere")', run))
    plan = with_attacks("[lost]").replace("[0, 1]", "[0]").replace("./observer.py", "lost.py")
    assert len(rows(attacked(tmp_path, plan).folder, "known@lost here")) == 3


def test_the_attack_in_the_documentation_keeps_the_promises_of_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs/how-to/attack.md").read_text()
    own = page.partition("## An attack of your own")[2]
    (tmp_path / "prune.py").write_text(own.partition("```python\n")[2].partition("```")[0])
    results = list(conformance.run("prune", [tmp_path / "prune.py"], only=["OPT-*", "ATT-*"]))
    assert len(results) > 4 and all(result.outcome == "passed" for result in results), results
