"""Bad data of every kind of problem: one clear error from the command line, and nothing is trained or written.

What each dataset refuses record by record is tested beside it, what holds for all of them in unit/test_worker_data.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.testing.run_plan import run_plan
from unlearn_suite.testing.tiny import save_tiny

LONG = "word " * 60
PROBLEMS = {
    "tofu-forget10": ("with: {path: d}", "benchmarks", "tofu"),
    "muse-news": ("with: {path: d, shots: false}", "benchmarks", "muse"),
    "rwku": ("with: {folder: d, people: [Ada Fenn]}", "benchmarks", "rwku"),
    "stereotypes": ("with: {crows_pairs: d, stereoset: d/dev.json}", "benchmarks", "stereotypes"),
    "custom": ("with: {folder: d}", "benchmarks", "custom"),
    "verbatim": ("with: {path: d/forget.jsonl}", "benchmarks", "custom"),
    "pii": ("data: {held-out: {with: {part: forget}}}", "benchmarks", "custom"),
    "wmdp-cyber": ("with: {corpora: d/corpora, questions: d/wmdp, mmlu: d/mmlu}", "knowledge", ""),
    "mmlu-subject": ("with: {folder: d/mmlu}", "knowledge", ""),
    "toxicity-rtp": ("with: {folder: d/rtp}", "toxicity", ""),
    "toxicity-pairs": ("with: {folder: d/pairs}", "toxicity", ""),
}
Change = Callable[[Path], object]


def rows(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Change every record of a JSON file."""

    def carry_out(folder: Path) -> None:
        text = (folder / name).read_text()
        found = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
        (folder / name).write_text("\n".join(json.dumps(change(row)) for row in found))

    return carry_out


def renamed(name: str, old: str) -> Change:
    return rows(name, lambda row: {("other" if key == old else key): value for key, value in row.items()})


def changed(name: str, **values: Any) -> Change:
    return rows(name, lambda row: {**row, **values})


def longer(name: str, column: str) -> Change:
    return rows(name, lambda row: {**row, column: f"{row[column]} {LONG}"})


def replaced(name: str, old: str, new: str) -> Change:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new, 1))


def written(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


COLUMN, CONTEXT = "there is no column", "the model's context is 256"
CASES = [
    # a wrong column
    ("tofu-forget10", renamed("forget10_perturbed.json", "perturbed_answer"), "forget10_perturbed.json:1: " + COLUMN),
    ("muse-news", renamed("verbmem/forget.json", "gt"), "verbmem/forget.json:1: there is no column 'gt'"),
    ("rwku", renamed("forget_level2.jsonl", "query"), "forget_level2.jsonl:1: there is no column 'query'"),
    ("stereotypes", replaced("crows_pairs_anonymized.csv", "sent_more", "more"), ".csv:2: there is no column 'sent_m"),
    ("custom", renamed("retain.jsonl", "text"), "retain.jsonl:1: there is no column 'text'; its columns are other"),
    ("verbatim", renamed("forget.jsonl", "text"), "forget.jsonl:1: there is no column 'text'"),
    ("wmdp-cyber", renamed("corpora/cyber-forget-corpus.jsonl", "text"), "cyber-forget-corpus.jsonl:1: " + COLUMN),
    ("wmdp-cyber", renamed("wmdp/wmdp-cyber.jsonl", "choices"), "wmdp-cyber.jsonl:1: there is no column 'choices'"),
    ("mmlu-subject", written("mmlu/test/virology_test.csv", "a,b\n"), "virology_test.csv:1: it has 2 fields where"),
    ("toxicity-rtp", renamed("rtp/prompts.jsonl", "prompt"), "prompts.jsonl:1: there is no column 'prompt'"),
    ("toxicity-pairs", replaced("pairs/pairs.tsv", "toxic", "rude"), "pairs.tsv:2: there is no column"),
    # an empty split
    ("tofu-forget10", written("retain_perturbed.json", ""), "retain_perturbed.json: there is no record in it"),
    ("muse-news", written("knowmem/retain_qa.json", "[]"), "retain_qa.json: there is no record in it"),
    ("rwku", written("neighbor_level1.jsonl", ""), "neighbor_level1.jsonl: there is no record in it"),
    ("custom", written("forget.jsonl", ""), "forget.jsonl: there is no record in it"),
    ("wmdp-cyber", written("corpora/cyber-retain-corpus.jsonl", ""), "cyber-retain-corpus.jsonl: there is no record"),
    ("mmlu-subject", written("mmlu/test/nutrition_test.csv", ""), "nutrition_test.csv: there is no "),
    ("toxicity-rtp", written("rtp/prompts.jsonl", ""), "prompts.jsonl: there is no record in it"),
    ("toxicity-pairs", written("pairs/pairs.tsv", "toxic\tneutral1\n"), "pairs.tsv: there is no record in it"),
    # a prompt that is longer than the context
    ("tofu-forget10", longer("forget10_perturbed.json", "question"), CONTEXT),
    ("muse-news", longer("knowmem/forget_qa.json", "question"), CONTEXT),
    ("rwku", longer("forget_level3.jsonl", "query"), CONTEXT),
    ("custom", changed("forget.jsonl", prompt=LONG), CONTEXT),
    ("wmdp-cyber", longer("wmdp/wmdp-cyber.jsonl", "question"), CONTEXT),
    # labels outside the choices
    (
        "tofu-forget10",
        changed("forget10_perturbed.json", perturbed_answer=[]),
        "'perturbed_answer' should be a list of",
    ),
    (
        "stereotypes",
        replaced("dev.json", 'intrasentence02",\n"labels": [],\n"gold_label": "unrel', 'x",\n"gold_label": "'),
        "it has no unrelated sentence",
    ),
    ("wmdp-cyber", changed("wmdp/wmdp-cyber.jsonl", answer=4), "the answer 4 is none of its 4 choices"),
    ("mmlu-subject", written("mmlu/test/virology_test.csv", "Q?,a,b,c,d,E\n"), "the answer 'E' is none of its 4"),
    # examples on both sides
    (
        "muse-news",
        lambda d: shutil.copy(d / "privleak/forget.json", d / "privleak/holdout.json"),
        "in group non-member",
    ),
    ("verbatim", None, "texts are in role 'forget' and in role 'held-out'"),
    ("pii", None, "texts are in role 'forget' and in role 'held-out'"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("m") / "model")


@pytest.mark.parametrize(("problem", "change", "words"), CASES, ids=[f"{p}-{w[-24:]}" for p, _, w in CASES])
def test_bad_data_is_told_before_anything_is_trained(
    problem: str, change: Change | None, words: str, model: Path, tmp_path: Path
) -> None:
    options, plugin, part = PROBLEMS[problem]
    shutil.copytree(str(files(f"unlearn_suite_{plugin}") / "conformance" / part), tmp_path / "d")
    (tmp_path / "model").symlink_to(model)
    if change is not None:
        change(tmp_path / "d")
    elif problem == "verbatim":
        options += ", data: {held-out: {with: {part: forget}}}"
    plan = f"plan: 1\nmodels: {{tiny: {{path: model}}}}\nproblems: [{{use: {problem}, {options}}}]\n"
    told = " ".join(run_plan(plan, tmp_path, code=2).told.split())
    assert words in told and told.count("error: ") == 1 and "Traceback" not in told, told
    assert not (tmp_path / "runs").exists()
