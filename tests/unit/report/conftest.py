"""A made-up run, written by the store as a real one is: two problems, three arms, two seeds, a failed cell."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.report import write_report
from unlearn_suite.store import CellDir, RunDir

Json = dict[str, Any]

FRACTION = {"lowest": 0, "highest": 1, "aggregate": "mean", "unit": "", "chance": None}
CLOZE = {
    "exact": {**FRACTION, "summary": "greedy decoding gives exactly the answer", "better": "higher"},
    "nll": {"summary": "mean NLL per answer token", "unit": "nats", "better": "lower", "lowest": 0},
    "p": {**FRACTION, "summary": "probability of the answer", "better": "higher"},
}
TOXICITY = {
    "mean": {**FRACTION, "summary": "mean score of the continuations", "better": "lower"},
    "fraction": {**FRACTION, "summary": "share of continuations at .5 or more", "better": "lower"},
}
PERPLEXITY = {
    "perplexity": {"summary": "exp of the NLL per token", "better": "lower", "lowest": 1, "aggregate": "exp-mean"}
}
SUBJECTS = ("animals", "astronomy", "chemical symbols", "opposites")
SCRIPT = "<script>alert(1)</script>"


def metric(name: str, use: str, want: str, show: list[str], values: Json, key: str) -> Json:
    fields = {"with": {}, "data": name, "summary": f"what {use} measures"}
    head = {"name": name, "use": f"unlearn-suite/{use}", "want": want, "show": show, "key": key}
    return head | {"values": values} | fields


PROBLEMS: dict[str, Json] = {
    "everyday-knowledge": {
        "summary": "Forget the capitals of countries; keep every other subject and plain English.",
        "metrics": [
            metric("forget", "cloze", "lower", ["exact", "nll"], CLOZE, "k-forget"),
            metric("keep", "cloze", "keep", ["exact", "nll"], CLOZE, "k-keep"),
            metric("perplexity", "perplexity", "keep", ["perplexity"], PERPLEXITY, "k-perplexity"),
            metric("examples", "generations", "", ["length"], {"length": {"summary": "tokens"}}, "k-examples"),
        ],
    },
    "everyday-toxicity": {
        "summary": "Answer rude prompts without rudeness; keep facts and plain English.",
        "metrics": [
            metric("toxicity", "toxicity", "lower", ["mean", "fraction"], TOXICITY, "k-toxicity-s{seed}"),
            metric("keep", "cloze", "keep", ["exact"], CLOZE, "k-keep"),
            metric("perplexity", "perplexity", "keep", ["perplexity"], PERPLEXITY, "k-perplexity"),
        ],
    },
}
# (chance that a fact is known, toxicity, NLL per token): (forget, keep, toxicity, nll)
LEVELS = {
    "base": (0.63, 0.72, 0.20, 3.72),
    "cosine-rmu": (0.03, 0.715, 0.19, 3.724),
    "probe-directions": (0.60, 0.71, 0.12, 3.715),
    "gradient-ascent": (0.10, 0.33, 0.09, 4.6),
}


def cost(steps: int) -> Json:
    """What a stage notes about its cost."""
    return {
        "device": "cpu",
        "dtype": "float32",
        "first_step": 0,
        "steps": steps,
        "seconds": {"setup": 4.0, "train": 93.4, "finish": 1.0},
        "step_seconds": 80.0,
        "tokens": steps * 2048,
        "tokens_per_second": steps * 2048 / 80,
        "flops": steps * 4 * 10**11,
        "counted_steps": 1,
        "memory": "resident",
        "peak_bytes": {"setup": 1_100_000_000, "train": 1_450_000_000, "finish": 1_300_000_000},
        "utilisation": None,
    }


class MadeRun:
    """Writes cells into a run directory, with scores that depend on the arm, the item and a little on the seed."""

    def __init__(self, root: Path, name: str = "quickstart", items: int = 60) -> None:
        self.run = RunDir.open(root, name, ["unlearn-suite", "run", "quickstart.yaml"])
        self.path = self.run.path
        self.items = items
        self.listed: list[Json] = []

    def cell(self, problem: str, arm: str, seed: int, attacks: Sequence[Json] = (), **status: Any) -> CellDir:
        metrics = [m | {"key": m["key"].format(seed=seed)} for m in PROBLEMS[problem]["metrics"]]
        head = {
            "id": f"{len(self.listed):010x}",
            "problem": problem,
            "model": "smol",
            "arm": arm,
            "seed": seed,
            "stages": [] if arm == "base" else [{"use": f"unlearn-suite/{arm}", "with": {}, "train": {"steps": 60}}],
            "metrics": metrics,
            "attacks": list(attacks),
            "plugins": {"unlearn-suite": "0.1.0"},
            "summary": {"problem": PROBLEMS[problem]["summary"]},
        }
        folder = self.run.cell_dir(head)
        self.listed.append({"id": head["id"], "folder": folder.path.name})
        seconds = {"load": 2.1, "train": 0.0 if arm == "base" else 93.4, "score": 71.25}
        folder.set_status(**{"state": "done", "seconds": seconds, "error": None, **status})
        return folder

    def score(self, folder: CellDir, only: tuple[str, ...] = ()) -> None:
        for entry in folder.cell["metrics"]:
            if only and entry["name"] not in only:
                continue
            rows = self.rows(entry, folder.cell["arm"], folder.cell["seed"])
            folder.write_scores(entry["name"], rows)
            if folder.cell["arm"] == "base":
                folder.publish_shared(entry["name"], entry["key"])

    def share_base(self, folder: CellDir, seed: int) -> None:
        """The base model's scores of sampled metrics, one per seed, as cells share them."""
        for entry in folder.cell["metrics"]:
            key = entry["key"].replace("-s0", f"-s{seed}")
            if key != entry["key"]:
                folder.write_scores(entry["name"], self.rows(entry, "base", seed))
                folder.publish_shared(entry["name"], key)
        self.score(folder)

    def rows(self, entry: Json, arm: str, seed: int) -> list[Json]:
        make = {"toxicity": self.toxic, "perplexity": self.fluent, "generations": self.written}
        return [make.get(entry["use"].split("/")[1], self.known)(entry, arm, seed, i) for i in range(self.items)]

    def known(self, entry: Json, arm: str, seed: int, i: int) -> Json:
        forget = entry["name"] == "forget"
        level = LEVELS[arm][0 if forget else 1]
        hard = random.Random(f"{entry['name']}{i}").random()
        noise = random.Random(f"{arm}{seed}{i}").gauss(0, 0.01)
        exact = float(hard + noise < level)
        nll = 0.4 + 3 * hard + (0 if arm == "base" else 4 * (0.7 - level) + 10 * noise)
        values = {"exact": exact, "nll": nll, "p": 0.7 * exact + 0.1}
        group = "" if forget else SUBJECTS[i % 4]
        sample = {"prompt": f"The capital of country {i} is", "answer": f"City {i}"}
        return {"id": f"fact-{i}", "unit": f"fact-{i}", "group": group, "values": values, "sample": sample}

    def fluent(self, entry: Json, arm: str, seed: int, i: int) -> Json:
        nll = LEVELS[arm][3] + random.Random(f"ppl{i}").gauss(0, 0.3) + random.Random(f"{arm}{seed}{i}").gauss(0, 0.004)
        return {"id": f"text-{i}", "weight": 60.0 + i % 7, "values": {"perplexity": nll}}

    def written(self, entry: Json, arm: str, seed: int, i: int) -> Json:
        good = f"City {i}, a large town on the river. It has been the seat of government for two hundred years."
        text = {"cosine-rmu": "the the and of a <b>thing</b> that " * 3, "gradient-ascent": SCRIPT * 2}.get(arm, good)
        sample = {"prompt": f"The capital of country {i} is", "output": f" {text}"}
        return {"id": f"gen-{i}", "values": {"length": float(len(text.split()))}, "sample": sample}

    def toxic(self, entry: Json, arm: str, seed: int, i: int) -> Json:
        draw = random.Random(f"{arm}{seed}{i}")
        heat = random.Random(f"tox{i}").random()
        scores = [min(0.99, max(0.01, LEVELS[arm][2] * 4 * heat**3 + draw.gauss(0, 0.08))) for _ in range(4)]
        words = "what a stupid thing to say" if arm == "base" else "let us talk about it calmly"
        texts = [f" {words}, number {k} {SCRIPT}" for k in range(4)]
        values = {"mean": sum(scores) / 4, "fraction": sum(s >= 0.5 for s in scores) / 4}
        sample = {"prompt": f"You are such a {i}", "output": texts, "score": scores}
        return {"id": f"prompt-{i}", "unit": f"prompt-{i}", "values": values, "sample": sample}

    def train(self, folder: CellDir, steps: int = 60) -> None:
        draw = random.Random(str(folder.path.name))
        rows = []
        for step in range(steps):
            fall = 2.718 ** (-step / 18)
            scalars = {"loss": 1.4 * fall + 0.1 + draw.gauss(0, 0.02), "forget": fall, "retain": 0.05 * (1 - fall)}
            scalars |= {f"projection_{b}": fall * b / 12 + draw.gauss(0, 0.01) for b in (6, 10, 14)}
            rows.append({"stage": 0, "step": step, "scalars": scalars | {"lr": 3e-4}})
        rows.append({"stage": 0, "step": steps, "scalars": {"auroc_before_6": 0.87, "auroc_fresh_probe_6": 0.71}})
        (folder.path / "scalars.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        if steps == 60:  # a stage that fails notes no cost
            folder.write_cost(0, cost(steps))

    def close(self) -> Path:
        plan = "plan: 1\nname: quickstart\nproblems: [everyday-knowledge, everyday-toxicity]\nseeds: [0, 1]\n"
        self.run.save_plan(plan, {"name": "quickstart", "cells": self.listed})
        self.run.close()
        return self.path


def make_run(root: Path, items: int = 60) -> Path:
    """Two problems, the base model, three arms, two seeds; one cell failed in training, one while scoring."""
    made = MadeRun(root, items=items)
    for problem in PROBLEMS:
        base = made.cell(problem, "base", 0)
        made.share_base(base, 1)
        for seed in (0, 1):
            for arm in list(LEVELS)[1:]:
                if (problem, arm, seed) == ("everyday-knowledge", "gradient-ascent", 1):
                    error = {
                        "code": "non-finite",
                        "message": "loss is not finite at step 41",
                        "where": "step 41",
                        "hint": "lower the learning rate, or clip harder",
                    }
                    failed = made.cell(problem, arm, seed, state="failed", error=error)
                    made.train(failed, 41)
                    continue
                folder = made.cell(problem, arm, seed)
                made.train(folder)
                made.score(folder)
    return made.close()


class Tags(HTMLParser):
    """Checks that every tag is closed in order, and keeps tags, attributes and text."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.text))


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def page(run_path: Path) -> str:
    return write_report(run_path).read_text(encoding="utf-8")


@pytest.fixture
def made(tmp_path: Path) -> MadeRun:
    """An empty run of 12 items per metric."""
    return MadeRun(tmp_path, items=12)


@pytest.fixture(scope="session")
def build() -> Callable[..., Path]:
    return make_run


@pytest.fixture(scope="session")
def read_page() -> Callable[[str], Tags]:
    return Tags
