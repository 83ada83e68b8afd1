"""A plugin that fails while it works: its distribution, its file and line, and the other cells go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unlearn_suite.cli import main
from unlearn_suite.testing.tiny import save_tiny

PLUGIN = """\
from unlearn_suite import *
from unlearn_suite import hookimpl

class Own(LossObjective[NoConfig]):
    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [0]), reads=0)
    def loss(self, batch):
        return Loss({"x": batch["forget"].mean(self.ctx.policy.hidden(batch["forget"], [0])[0].norm(dim=-1))})

class Width(Metric[NoConfig]):
    def score(self, model, examples, seed):
        return [Row(e.id, {"width": 1.0}) for e in examples]

@hookimpl
def register_objectives(register):
    register(ObjectiveSpec("own", "s", f"{__name__}:Own", roles=("forget",)))
@hookimpl
def register_metrics(register):
    register(MetricSpec("width", "s", f"{__name__}:Width", {"width": ValueSpec("s")}))

class Bad(Own):
    pass
class BadWidth(Width):
    pass
def fail(*args, **kwargs):
    raise ZeroDivisionError("no")

@hookimpl
def on_run_start(run): pass
"""
FAIL_LINE = PLUGIN.splitlines().index('    raise ZeroDivisionError("no")') + 1
PLAN = """\
plan: 1
plugins: [./plug.py]
models: {tiny: {path: model}}
problems:
  - name: words
    data: {forget: {use: text, with: {path: words.txt}}}
    metrics: [{use: width, data: forget}]
arms:
  bad: {stages: [{use: own, steps: 2, batch: 1, save_every: 1}]}
  base: {stages: []}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


def run(tmp_path, model, monkeypatch, capsys, plugin: str) -> tuple[int, str, dict[str, dict]]:
    """Exit code, all that was written, and status.json by arm."""
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(model)
    Path("words.txt").write_text("one line\n\nanother line\n")
    Path("plan.yaml").write_text(PLAN)
    Path("plug.py").write_text(plugin)
    with pytest.raises(SystemExit) as left:
        main(["run", "plan.yaml"])
    status = {
        path.parent.name.split(".")[2]: json.loads(path.read_text())
        for path in tmp_path.glob("runs/plan/cells/*/status.json")
    }
    captured = capsys.readouterr()
    return int(left.value.code or 0), captured.out + captured.err, status


@pytest.mark.parametrize("method", ["__init__", "requirements", "setup", "step", "loss", "state_dict", "finish"])
def test_an_objective_that_raises(tmp_path, model, monkeypatch, capsys, method):
    plugin = PLUGIN.replace(":Own", ":Bad").replace(
        "@hookimpl\ndef on_run_start", f"Bad.{method} = fail\n@hookimpl\ndef on_run_start"
    )
    code, told, status = run(tmp_path, model, monkeypatch, capsys, plugin)
    assert code == 1
    assert f"plug, plug.py:{FAIL_LINE}: objective 'own' raised ZeroDivisionError: no" in told
    assert "Traceback" not in told
    assert (status["bad"]["state"], status["base"]["state"]) == ("failed", "done")


def test_a_metric_that_raises(tmp_path, model, monkeypatch, capsys):
    plugin = PLUGIN.replace(":Width", ":BadWidth").replace(
        "@hookimpl\ndef on_run_start", "BadWidth.score = fail\n@hookimpl\ndef on_run_start"
    )
    code, told, _ = run(tmp_path, model, monkeypatch, capsys, plugin)
    assert code == 3 and f"plug, plug.py:{FAIL_LINE}: metric 'width' raised ZeroDivisionError: no" in told


@pytest.mark.parametrize(
    "hook",
    [
        "on_run_start(run)",
        "on_cell_start(cell)",
        "on_scalars(step)",
        "on_scores(rows)",
        "on_cell_end(status)",
        "on_run_end(run)",
    ],
)
def test_an_observer_that_raises_is_told_and_changes_nothing(tmp_path, model, monkeypatch, capsys, caplog, hook):
    plugin = PLUGIN.replace("on_run_start(run): pass", f"{hook}: fail()")
    code, _, status = run(tmp_path, model, monkeypatch, capsys, plugin)
    assert code == 0 and {one["state"] for one in status.values()} == {"done"}
    (record,) = [r for r in caplog.records if "observer" in r.getMessage()]
    assert f"plug.py:{FAIL_LINE}: its observer {hook.split('(')[0]} raised ZeroDivisionError" in record.getMessage()
