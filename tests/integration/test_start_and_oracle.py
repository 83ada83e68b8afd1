"""Problems that begin from a model of their own making, their oracle and controls, run as a user would run them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unlearn_suite.cli import main
from unlearn_suite.engine import patch
from unlearn_suite.engine.patch import tensor_hash
from unlearn_suite.runner.progress import NoProgress
from unlearn_suite.testing.tiny import save_tiny, tiny_model
from unlearn_suite.worker.beginning import random_weights

PLAN = """
plan: 1
name: books
seeds: [0, 1]
models: {tiny: {path: model}}
problems:
  - name: books
    summary: forget one author, keep the other
    data:
      start: [{use: jsonl, with: {path: ann.jsonl}}, {use: jsonl, with: {path: bob.jsonl}}]
      forget: {use: jsonl, with: {path: ann.jsonl}}
      retain: {use: jsonl, with: {path: bob.jsonl}}
    start: {stages: [{use: sft, steps: 40, lr: 1.0e-2, batch: 8, save_every: 5}]}
    default: {stages: [{use: graddiff, steps: 2, lr: 1.0e-3, batch: 4}]}
    oracle: {stages: [{use: sft, with: {role: retain}, steps: 20, lr: 1.0e-2, batch: 4}]}
    metrics:
      - {name: known, use: cloze, data: forget, want: lower, show: [hit, nll]}
      - {name: kept, use: cloze, data: retain, want: keep, show: [hit]}
arms:
  base: {stages: []}
  unlearned: {stages: default}
  oracle: {stages: oracle, only: [books]}
  published: {from: original, stages: []}
  chance: {from: random, stages: []}
compute: {device: cpu}
"""
BOOKS = {
    "ann": [("Where was Ann born?", "in Rome"), ("What does Ann write?", "tales"), ("Who is Ann's cat?", "Tom")],
    "bob": [("Where was Bob born?", "in Oslo"), ("What does Bob write?", "odes"), ("Who is Bob's dog?", "Rex")],
}


def write(folder: Path, plan: str = PLAN) -> Path:
    if not (folder / "model").exists():
        save_tiny(folder / "model")
    for name, pairs in BOOKS.items():
        rows = [json.dumps({"id": q, "prompt": f"{q}\n", "text": a}) for q, a in pairs]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    path = folder / "plan.yaml"
    path.write_text(plan)
    return path


def suite(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


def cells(folder: Path, name: str = "books") -> dict[str, Path]:
    """ "arm.seed" -> folder; "problem.arm.seed" in another run than `books`."""
    found = {}
    for path in sorted((folder / "runs" / name / "cells").iterdir()):
        problem, _, arm, seed, _ = path.name.split(".")
        found[f"{arm}.{seed}" if name == "books" else f"{problem}.{arm}.{seed}"] = path
    return found


def starts(folder: Path, name: str = "books") -> list[Path]:
    return sorted((folder / "runs" / name / "shared" / "starts").iterdir())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    patcher = pytest.MonkeyPatch()
    patcher.chdir(folder)
    write(folder)
    assert suite("run", "plan.yaml") == 0
    patcher.undo()
    return folder


@pytest.fixture
def here(done: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(done)
    return done


def numbers(folder: Path) -> dict[tuple[str, str], dict]:
    summary = json.loads((folder / "runs/books/results/summary.json").read_text())
    return {(r["arm"], r["metric"]): r for r in summary["results"] if r["value"] in ("hit", "log")}


def test_every_arm_begins_from_the_started_model_but_controls(done: Path) -> None:
    found = numbers(done)
    for metric in ("known", "kept"):  # it has learned both, the published model neither
        assert found["base", metric]["mean"] > 0.7 > 0.3 > found["published", metric]["mean"]
    assert found["oracle", "kept"]["mean"] > 0.7
    assert found["oracle", "known"]["mean"] < found["base", "known"]["mean"]
    for arm in ("unlearned", "oracle", "published", "chance"):  # all are compared with the started model
        assert found[arm, "known"]["base"]["mean"] == found["base", "known"]["mean"]
    shown = {arm: json.loads((path / "cell.json").read_text())["start"] for arm, path in cells(done).items()}
    assert {arm: s["from"] for arm, s in shown.items()} == {
        "base.s0": "start",
        "published.s0": "original",
        "chance.s0": "random",
        **{f"unlearned.s{seed}": "start" for seed in (0, 1)},
        **{f"oracle.s{seed}": "original" for seed in (0, 1)},
    }


def test_the_started_model_is_made_once(done: Path) -> None:
    (home,) = starts(done)
    assert sorted(p.name for p in home.iterdir() if p.suffix != ".lock" and p.is_file()) == [
        "cell.json",
        "cost.json",
        "patch.safetensors",
        "scalars.jsonl",
        "status.json",
    ]
    assert not list(home.glob("checkpoints/*"))
    made = [
        path for path in cells(done).values() if "start" in json.loads((path / "status.json").read_text())["seconds"]
    ]
    assert len(made) == 4  # base, two seeds of unlearned, and the random model


def test_a_patch_is_against_the_published_model(done: Path) -> None:
    (home,) = starts(done)
    model = tiny_model()
    published = {name: p.detach().clone() for name, p in model.named_parameters()}
    begun, base = patch.load(home / "patch.safetensors")
    after, its_base = patch.load(cells(done)["unlearned.s0"] / "patch.safetensors")
    for hashes in (base, its_base):
        assert all(tensor_hash(published[name]) == digest for name, digest in hashes.items())
    assert after.keys() == begun.keys()
    far = max(float((after[n] - begun[n]).abs().max()) for n in after)
    assert 0 < far < 3e-3  # two small steps from the started model, not from the published one


def test_export_needs_nothing_new(here: Path) -> None:
    folder = cells(here)["unlearned.s0"]
    assert suite("export", str(folder), "--to", "out") == 0
    out = load_file(here / "out" / "model.safetensors")
    after, _ = patch.load(folder / "patch.safetensors")
    assert all(torch.equal(out[name], tensor) for name, tensor in after.items())


def test_random_weights_are_a_function_of_the_seed_and_leave_global_randomness_alone() -> None:
    model = tiny_model()
    before = torch.get_rng_state()
    first, again, other = (random_weights(model, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.keys() == dict(tiny_model().named_parameters()).keys()
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


def test_the_page_says_what_arms_begin_from(done: Path) -> None:
    page = (done / "runs/books/report/index.html").read_text()
    assert (
        "Arms begin from tiny after sft (40 steps). published and oracle begin from tiny as published. "
        "chance begins from random weights." in page
    )
    assert '<th scope="row">start' in page  # in the table of costs


def test_again_nothing_is_done_and_other_roles_or_arms_do_not_make_a_new_start(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamp = (starts(here)[0] / "patch.safetensors").stat().st_mtime_ns
    assert suite("run", "plan.yaml") == 0
    assert "nothing to do" in capsys.readouterr().out
    more = PLAN.replace(
        "    start: {stages", "      asked: {use: jsonl, with: {path: ann.jsonl, limit: 1}}\n    start: {stages"
    )
    write(here, more)
    assert suite("run", "plan.yaml", "--only", "*.base.*") == 0
    (home,) = starts(here)
    assert (home / "patch.safetensors").stat().st_mtime_ns == stamp
    write(here)


def test_other_steps_are_another_start_and_leave_the_controls_alone(here: Path, capsys: pytest.CaptureFixture) -> None:
    def ids(plan: str) -> dict[str, str]:
        write(here, plan)
        assert suite("run", "plan.yaml", "--dry-run", "--json") == 0
        shown = json.loads(capsys.readouterr().out)
        return {".".join(c["folder"].split(".")[2:4]): c["id"] for c in shown}

    before, after = ids(PLAN), ids(PLAN.replace("steps: 40", "steps: 41"))
    write(here)
    changed = {arm for arm in before if before[arm] != after[arm]}
    assert changed == {"base.s0", "unlearned.s0", "unlearned.s1"}


def test_a_dry_run_tells_of_the_start(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suite("run", "plan.yaml", "--dry-run") == 0
    assert "books begins from tiny after sft (40 steps): made\n" in capsys.readouterr().out
    assert suite("run", "plan.yaml", "--dry-run", "--runs", "elsewhere") == 0
    assert "books begins from tiny after sft (40 steps): to be made by its first cell" in capsys.readouterr().out


def test_the_estimate_counts_a_start_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suite("plan", "check", "plan.yaml", "--estimate", "--json") == 0
    told = json.loads(capsys.readouterr().out)["cells"]
    flops = {".".join(one["folder"].split(".")[2:4]): one["flops"]["start"] for one in told}
    assert flops.pop("base.s0") > 0 and not any(flops.values())


class Stopping(NoProgress):
    """Asks to stop at the third step of anything that is trained."""

    def update(self, done: int, info: object = None) -> None:
        if info and done == 13:
            self.request_stop()


def test_a_start_that_is_stopped_goes_on_to_the_same_bits(done: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(done / "model", tmp_path / "model")
    write(tmp_path)
    from unlearn_suite import runner

    with monkeypatch.context() as patched:
        patched.setattr(runner, "make_progress", lambda stream: Stopping())
        assert suite("run", "plan.yaml", "--only", "*.unlearned.s0.*") == 130
    (home,) = starts(tmp_path)
    assert list(home.glob("checkpoints/stage0.step000013.*")) and not (home / "patch.safetensors").exists()
    assert suite("run", "plan.yaml", "--only", "*.unlearned.s0.*") == 0
    for ours, theirs in (
        (home / "patch.safetensors", starts(done)[0] / "patch.safetensors"),
        (cells(tmp_path)["unlearned.s0"] / "patch.safetensors", cells(done)["unlearned.s0"] / "patch.safetensors"),
    ):
        mine, its = load_file(ours), load_file(theirs)
        assert all(torch.equal(mine[name], its[name]) for name in its)
