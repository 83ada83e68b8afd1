"""The command `lm_eval` and `unlearn-suite run` on the same checkpoint and the same local items: the same numbers."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from unlearn_suite.testing.run_plan import run_plan
from unlearn_suite.testing.tiny import save_tiny

SENTENCE = "the river runs from a mountain to some sea where old boats carry salt and grain all year"
WORDS = SENTENCE.split()
HEAD = "dataset_path: json\ntest_split: test\nnum_fewshot: 0\ndataset_kwargs: {data_files: {test: FILE}}\n"
TASKS = {
    # the harness's wmdp and mmlu prompt
    "exam": r"""output_type: multiple_choice
description: "The following are multiple choice questions (with answers) about biology.\n\n"
doc_to_text: "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list: [{metric: acc}]
""",
    # its crows_pairs
    "pairs": """output_type: multiple_choice
doc_to_text: ""
doc_to_target: 0
doc_to_choice: !function utils.doc_to_choice
target_delimiter: ""
process_results: !function utils.process_results
metric_list: [{metric: likelihood_diff, aggregation: mean}, {metric: pct_stereotype, aggregation: mean}]
""",
    # its wikitext
    "wiki": """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
}
UTILS = """
def doc_to_choice(doc):
    return doc["choices"]


def process_results(doc, results):
    (one, two), _ = zip(*results)
    return {"likelihood_diff": abs(one - two), "pct_stereotype": 1.0 if one > two else 0.0}
"""
PLAN = r"""
plan: 1
name: both
models: {tiny: {path: model}}
problems:
  - name: items
    data:
      exam: {use: jsonl, with: {path: exam.jsonl, columns: {prompt: question}}}
      pairs: {use: jsonl, with: {path: pairs.jsonl}}
      wiki: {use: jsonl, with: {path: wiki.jsonl}}
    metrics:
      - name: exam
        use: multiple-choice
        data: exam
        with:
          template: letters
          description: "The following are multiple choice questions (with answers) about biology.\n\n"
      - {name: pairs, use: pairs, data: pairs}
      - {name: wiki, use: perplexity, data: wiki}
arms: {base: {stages: []}}
compute: {device: cpu}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, three files of items, and the harness's tasks on them."""
    folder = tmp_path_factory.mktemp("both")
    save_tiny(folder / "model", max_position_embeddings=1024)
    draw = random.Random(7)

    def words(low: int, high: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    rows: dict[str, list[dict[str, Any]]] = {
        "exam": [
            {"question": words(4, 12), "choices": [words(1, 4) for _ in range(4)], "answer": draw.randrange(4)}
            for _ in range(16)
        ],
        "pairs": [{"text": "", "choices": [words(3, 9), words(3, 9)]} for _ in range(12)],
        "wiki": [{"text": words(3, 200)} for _ in range(5)],
    }
    (folder / "tasks").mkdir()
    (folder / "tasks/utils.py").write_text(UTILS)
    for name, found in rows.items():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in found))
        (folder / f"tasks/{name}.yaml").write_text(f"task: {name}\n{TASKS[name]}{HEAD.replace('FILE', str(file))}")
    return folder


def command(folder: Path) -> dict[str, dict[str, float]]:
    """What the command says: {task: {number: value}}."""
    words = ["--model", "hf", "--model_args", "pretrained=model,dtype=float32", "--tasks", ",".join(TASKS)]
    words += ["--include_path", "tasks", "--output_path", "out", "--device", "cpu", "--batch_size", "4"]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hf")}
    subprocess.run(
        [sys.executable, "-m", "lm_eval", *words], cwd=folder, env=environment, check=True, capture_output=True
    )
    (path,) = (folder / "out").rglob("results_*.json")
    results: dict[str, dict[str, float]] = json.loads(path.read_text())["results"]
    return {task: {key.partition(",")[0]: value for key, value in told.items()} for task, told in results.items()}


def test_every_number_is_the_commands(folder: Path) -> None:
    theirs = command(folder)
    ran = run_plan(PLAN, folder)
    ours = {(r["metric"], r["value"]): r["mean"] for r in ran.results}
    near = {
        ("exam", "accuracy"): theirs["exam"]["acc"],
        ("pairs", "first"): theirs["pairs"]["pct_stereotype"],
        ("pairs", "difference"): theirs["pairs"]["likelihood_diff"],
    }
    for place, value in near.items():
        assert ours[place] == pytest.approx(value, rel=1e-4), place
    assert 0 < theirs["exam"]["acc"] < 1 and 0 < theirs["pairs"]["pct_stereotype"] < 1
    # the suite's perplexity is per token; the harness's have the same sum over other units
    (path,) = ran.folder.glob("cells/*/scores/wiki.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    nll = sum(row["weight"] * row["values"]["nll"] for row in rows)
    texts = [json.loads(line)["text"] for line in (folder / "wiki.jsonl").read_text().splitlines()]
    count, size = sum(len(text.split()) for text in texts), sum(len(text.encode()) for text in texts)
    expected = {"word_perplexity": math.exp(nll / count), "byte_perplexity": math.exp(nll / size)}
    expected["bits_per_byte"] = nll / size / math.log(2)
    assert {name: theirs["wiki"][name] for name in expected} == pytest.approx(expected, rel=1e-4)
