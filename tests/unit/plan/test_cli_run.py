"""`run` from a plan to a report, on a tiny random model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.cli import main
from unlearn_suite.testing.tiny import save_tiny

PLUGIN = """\
from unlearn_suite import DatasetSpec, Example, hookimpl


def load_letters(config):
    return [Example(id=c, text=c * 12, group="letters") for c in "abcdef"]


@hookimpl
def register_datasets(register):
    register(DatasetSpec("letters", "letters", f"{__name__}:load_letters"))


@hookimpl
def on_run_end(run, summary):
    open("seen.txt", "a").write(run["name"] + "\\n")
"""

PLAN = """\
plan: 1
name: tiny
plugins: [letters.py]
models: {tiny: {path: model}}
problems:
  - name: small
    data: {forget: {use: letters}, retain: {use: letters}}
    metrics: [{use: perplexity, data: retain, want: keep}]
arms:
  base: {stages: []}
  rmu: {stages: [{use: cosine-rmu, steps: 2, batch: 2, with: {block: 1, width: 1, meta: none}}]}
compute: {device: cpu, threads: 1}
expect: [{problem: small, arm: rmu, metric: perplexity, of: relative_change, below: 10}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    save_tiny(path / "model")
    (path / "letters.py").write_text(PLUGIN)
    (path / "plan.yaml").write_text(PLAN)
    return path


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def times() -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path("runs/tiny/cells").rglob("*") if path.is_file()}


def test_a_part_then_all_then_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "plan.yaml", "--limit", "1", "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [(cell["arm"], cell["state"]) for cell in told["cells"]] == [("base", "done")]
    assert (told["unmet"], told["exit"]) == ([], 0)

    assert call("run", "plan.yaml") == 0
    out, err = capsys.readouterr()
    assert "perplexity" in out
    assert out.endswith("report: runs/tiny/report/index.html\n")
    assert err == ""
    assert Path("runs/tiny/report/index.html").stat().st_size > 1000
    assert Path("runs/tiny/results/records.parquet").is_file()
    assert Path("runs/tiny/plans/001.yaml").read_text() == PLAN
    lock = json.loads(Path("runs/tiny/plan.lock.json").read_text())
    assert [cell["folder"] for cell in lock["cells"]] == sorted(path.name for path in Path("runs/tiny/cells").iterdir())
    assert Path("seen.txt").read_text() == "tiny\ntiny\n"

    before = times()
    assert call("run", "plan.yaml") == 0
    assert times() == before
    capsys.readouterr()
    assert call("run", "plan.yaml", "--dry-run") == 0
    assert capsys.readouterr().out.endswith("2 cells, 0 to do, in runs/tiny\n")


def test_an_expectation_that_does_not_hold(capsys: pytest.CaptureFixture[str]) -> None:
    Path("strict.yaml").write_text(PLAN.replace("below: 10", "below: -0.99"))
    assert call("run", "strict.yaml") == 5
    err = capsys.readouterr().err
    assert err.startswith("strict.yaml:13:10: relative change of perplexity perplexity of rmu on small (tiny) is ")
    assert "expected below -0.99\nerror: an expectation does not hold\n" in err


def test_a_report_is_written_again(capsys: pytest.CaptureFixture[str]) -> None:
    call("run", "plan.yaml")
    page = Path("runs/tiny/report/index.html")
    page.unlink()
    capsys.readouterr()
    assert call("report", "runs/tiny") == 0
    assert page.is_file()
    assert "perplexity" in capsys.readouterr().out


def test_a_stage_that_cannot_work_fails_its_cell_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    Path("deep.yaml").write_text(PLAN.replace("name: tiny", "name: deep").replace("block: 1", "block: 99"))
    assert call("run", "deep.yaml") == 1
    states = {
        path.parent.name.split(".")[2]: json.loads(path.read_text())
        for path in Path("runs/deep/cells").glob("*/status.json")
    }
    assert {arm: status["state"] for arm, status in states.items()} == {"base": "done", "rmu": "failed"}
    out, err = capsys.readouterr()
    assert "99" in states["rmu"]["error"]["message"]
    assert "Traceback" not in out + err


def test_a_preset_that_nobody_has_run_is_told_there_and_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    short = "use: cosine-rmu, steps: 2, batch: 2, with: {block: 1, width: 1, meta: none}"
    preset = "use: cosine-rmu, preset: llama3-8b-reconstruction, steps: 1, with: {meta: none, block: 1, width: 1}"
    Path("told.yaml").write_text(PLAN.replace("name: tiny", "name: told").replace(short, preset))
    assert "llama3" in Path("told.yaml").read_text()
    assert call("run", "told.yaml") == 0
    note = "llama3-8b-reconstruction&#39; of cosine-rmu has not been run at its scale: check its results"
    assert note.replace("&#39;", "'") in capsys.readouterr().err
    assert note in Path("runs/told/report/index.html").read_text()


def test_listing_cells_does_not_load_torch() -> None:
    code = "import sys\nfrom unlearn_suite.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as e:\n"
    code += "    assert e.code == 0\nassert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    command = [sys.executable, "-c", code, "run", "plan.yaml", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
