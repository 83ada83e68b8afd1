"""`verbatim`, `custom`, `muse-news`, `muse-books` and `pii` from the command line to the report, on a tiny model."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from unlearn_suite.testing.run_plan import run_plan
from unlearn_suite.testing.tiny import save_tiny

PLAN = """
plan: 1
name: all
models: {tiny: {path: model}}
problems:
  - {use: verbatim, with: {path: story.txt, words: 16}}
  - {use: custom, with: {folder: custom}}
  - {use: muse-news, with: {path: muse}}
  - {use: muse-books, with: {path: muse, shots: false}}
  - {use: pii, with: {people: 10, learn: 2, gradnorm: true}}
  - {use: custom-finetuned, with: {folder: custom, learn: 2}}
arms:
  base: {stages: []}
  npo: {stages: [{use: npo, steps: 2, batch: 2, length: 48}]}
  oracle: {stages: oracle, only: [pii, custom-finetuned]}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # what stands in the worked examples of MUSE must fit the context
    return save_tiny(tmp_path_factory.mktemp("m") / "model", max_position_embeddings=512)


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """Beside a model the texts that the conformance kit uses."""
    shutil.copytree(str(files("unlearn_suite_benchmarks") / "conformance"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "model").symlink_to(model)
    return tmp_path


def test_from_the_plan_to_the_report(folder: Path) -> None:
    ran = run_plan(PLAN, folder)
    for problem in ("verbatim", "custom", "muse-news", "muse-books", "pii", "custom-finetuned"):
        assert f"{problem} on tiny" in ran.told
    cells = [json.loads(path.read_text()) for path in folder.glob("runs/all/cells/*/cell.json")]
    assert len(cells) == 6 * 2 + 2
    for cell in cells:
        scored = folder / "runs/all/cells" / f"{cell['problem']}.tiny.{cell['arm']}.s0.{cell['id']}" / "scores"
        assert {path.stem for path in scored.iterdir()} == {entry["name"] for entry in cell["metrics"]}
    mia = {r["value"] for r in ran.results if (r["problem"], r["metric"], r["arm"]) == ("pii", "mia", "npo")}
    assert mia == {"min-k", "privleak", "loss", "zlib", "min-k-plus-plus", "reference", "gradnorm"}
    assert "Reliability: tells models that know a text from models that never saw it with AUC .89" in ran.page


@pytest.mark.parametrize(
    ("problem", "change", "words"),
    [
        ("{use: custom, with: {folder: custom}}", "retain.jsonl", ["plan.yaml:5:", "there is no file or folder"]),
        ("{use: custom}", "", ["problem 'custom' needs 'folder' under `with`"]),
        ("{use: verbatim, with: {path: custom/short.txt}}", "", ["short.txt", "one passage cannot be split"]),
        ("{use: muse-news, with: {path: custom}}", "", ["the folder lacks the files of the release"]),
        ("{use: pii, with: {people: 3}}", "", ["'people': expected a number of 6 or more"]),
    ],
)
def test_what_a_user_gets_wrong(problem: str, change: str, words: list[str], folder: Path) -> None:
    if change:
        (folder / "custom" / change).unlink()
    (folder / "custom/short.txt").write_text("only a few words")
    plan = f"plan: 1\nmodels: {{tiny: {{path: model}}}}\nproblems:\n  # which\n  - {problem}\n"
    told = " ".join(run_plan(plan, folder, code=2).told.split())
    assert "Traceback" not in told
    for word in words:
        assert word in told, told


def test_a_text_that_is_forgotten_and_kept_is_told(folder: Path) -> None:
    shutil.copy(folder / "custom/forget.jsonl", folder / "custom/retain.jsonl")
    problem = "{use: custom, with: {folder: custom}, metrics: {rouge: {with: {max_new_tokens: 4}}}}"
    arms = "arms: {base: {stages: []}}"
    plan = f"plan: 1\nmodels: {{tiny: {{path: model}}}}\nproblems: [{problem}]\n{arms}\n"
    told = " ".join(run_plan(plan, folder).told.split())
    assert "3 texts are in role 'forget' and in role 'retain', such as 'forget:1'" in told
