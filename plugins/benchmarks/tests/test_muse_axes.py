"""MUSE's six axes on a tiny model: numbers by their definitions from what the model wrote, sizes, requests in a row."""

from __future__ import annotations

import contextlib
import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import roc_auc_score

from unlearn_suite.cli import main
from unlearn_suite.testing.run_plan import Ran, run_plan
from unlearn_suite.testing.tiny import save_tiny

SHORT = "metrics: {verbmem: {with: {max_new_tokens: 12}}, knowmem: {with: {max_new_tokens: 9}}, utility: {with: {max_new_tokens: 9}}}"  # noqa: E501
PLAN = f"""
plan: 1
name: NAME
models: {{target: {{path: MODEL}}}}
problems:
  - {{use: muse-news, as: one, with: {{path: muse, shots: false}}, data: {{forget: {{with: {{set: SET-1}}}}}}, {SHORT}}}
  - {{use: muse-news, as: two, with: {{path: muse, shots: false}}, data: {{forget: {{with: {{set: SET-2}}}}}}, {SHORT}}}
arms:
  base: {{stages: []}}
  npo: {{stages: [{{use: npo, steps: 2, batch: 2, length: 48, lr: 5e-3}}]}}
  taught: {{stages: [{{use: sft, with: {{role: verbatim}}, steps: 80, batch: 2, length: 120, lr: 1e-2}}], only: [one]}}
  oracle: {{stages: [{{use: sft, with: {{role: retain}}, steps: 2, batch: 2, length: 48, lr: 5e-3}}]}}
compute: {{device: cpu}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that has the answers by heart, more or less, and a release with two sizes and two requests."""
    shutil.copytree(str(files("unlearn_suite_benchmarks") / "conformance/muse"), tmp_path / "muse")
    text = (tmp_path / "muse/raw/forget.txt").read_text().strip()
    for kind, parts in (("scal", (text[:60], text)), ("sust", (text[:60], text[60:]))):
        (tmp_path / "muse" / kind).mkdir()
        for number, part in enumerate(parts, start=1):
            (tmp_path / f"muse/{kind}/forget_{number}.txt").write_text(part)
    for name, what in (("forget", "boat"), ("holdout", "mill")):  # enough of them for an auc between 0 and 1
        texts = [f"{n} {what}s came {'back ' * (n % 3)}to the {('bay', 'quay')[n % 2]}" for n in range(8)]
        (tmp_path / f"muse/privleak/{name}.json").write_text(json.dumps(texts))
    save_tiny(tmp_path / "model", max_position_embeddings=512)
    return tmp_path


def rows(ran: Ran, problem: str, arm: str, entry: str, kind: str = "scores") -> list[dict[str, Any]]:
    (path,) = [*ran.folder.glob(f"cells/{problem}.*.{arm}.*/{kind}/{entry}.jsonl")][:1]
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_axes_by_their_definitions_and_the_forget_sets_by_size(folder: Path) -> None:
    ran = run_plan(PLAN.replace("NAME", "scal").replace("MODEL", "model").replace("SET", "scal"), folder)
    number = {(r["problem"], r["arm"], r["metric"], r["value"]): r["mean"] for r in ran.results}
    rouge = RougeScorer(["rougeL"], use_stemmer=True)
    for problem, arm in (("one", "npo"), ("one", "taught"), ("two", "npo")):
        for entry in ("verbmem", "knowmem", "utility"):
            told = rows(ran, problem, arm, entry, "samples")
            cut = [t["output"] for t in told]
            if entry != "verbmem":  # answers end at a line or at another question
                cut = [c.split("\n")[0].split("Question")[0] for c in cut]
            scores = [rouge.score(t["answer"], c)["rougeL"].fmeasure for t, c in zip(told, cut, strict=True)]
            assert number[problem, arm, entry, "rougeL-f1"] == pytest.approx(sum(scores) / len(scores))
        auc = []
        for one in (arm, "oracle"):
            found = rows(ran, problem, one, "privleak")
            labels = [row["group"] == "non-member" for row in found]
            auc.append(roc_auc_score(labels, [row["values"]["min-k"] for row in found]))
        leak = 100 * ((1 - auc[0]) - (1 - auc[1])) / (1 - auc[1])
        assert number[problem, arm, "privleak", "privleak"] == pytest.approx(leak)
    assert number["one", "taught", "verbmem", "rougeL-f1"] > 0.1 and auc[1] < 1
    cells = {p.name.split(".")[0]: json.loads((p / "cell.json").read_text()) for p in ran.folder.glob("cells/*.npo.*")}
    assert [cells[name]["data"]["forget"][0]["with"]["set"] for name in ("one", "two")] == ["scal-1", "scal-2"]
    assert cells["one"]["data"]["forget"][0]["fingerprint"] != cells["two"]["data"]["forget"][0]["fingerprint"]


def test_the_second_request_begins_where_the_first_one_ended(folder: Path) -> None:
    """As docs/how-to/memorised-text.md says it: a run, an export, the next run."""
    plan = PLAN.replace("NAME", "sust-1").replace("MODEL", "model").replace("SET", "sust")
    first = run_plan(
        "\n".join(line for line in plan.splitlines() if not any(word in line for word in ("two", "oracle", "taught"))),
        folder,
    )
    (cell,) = first.folder.glob("cells/one.target.npo.*")
    with contextlib.chdir(folder), pytest.raises(SystemExit) as ended:
        main(["export", cell.name, "--run", "runs/sust-1", "--to", "after-1"])
    assert not ended.value.code
    plan = PLAN.replace("NAME", "sust-2").replace("MODEL", "after-1").replace("SET", "sust")
    second = run_plan(
        "\n".join(
            line for line in plan.splitlines() if not any(word in line for word in ("as: one", "oracle", "taught"))
        ),
        folder,
    )
    after = {(r["metric"], r["value"]): r["mean"] for r in first.results if r["arm"] == "npo"}
    before = {(r["metric"], r["value"]): r["mean"] for r in second.results if r["arm"] == "base"}
    assert before.keys() == after.keys() and before == pytest.approx(after, rel=1e-4)
    untouched = {(r["metric"], r["value"]): r["mean"] for r in first.results if r["arm"] == "base"}
    assert abs(before["perplexity", "nll"] - untouched["perplexity", "nll"]) > 1e-3
