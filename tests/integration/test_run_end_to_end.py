"""`unlearn-suite run` on a tiny model and local files, as a user would run it: a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unlearn_suite.testing.tiny import save_tiny

COMMAND = [str(Path(sys.executable).parent / "unlearn-suite")]

PLAN = """
plan: 1
name: tiny
models: {tiny: {path: model}}
problems:
  - name: words
    summary: forget animals, keep weather
    data:
      forget: {use: jsonl, with: {path: animals.jsonl}}
      retain: {use: jsonl, with: {path: weather.jsonl}}
      asked: {use: jsonl, with: {path: asked.jsonl}}
    metrics:
      - {name: forget, use: cloze, data: asked, want: lower, show: [nll]}
      - {name: perplexity, use: perplexity, data: retain, want: keep, show: [perplexity]}
arms:
  base: {stages: []}
  cosine-rmu:
    stages: [{use: cosine-rmu, with: {block: 2, inner_loss: rep}, steps: STEPS, lr: 5.0e-3, batch: 4, save_every: 2}]
"""
ANIMALS = ["the cat drinks milk", "a dog eats meat", "the owl hunts mice", "cows eat grass", "a fox eats hens"]
WEATHER = ["rain falls in april", "snow lies on hills", "wind blows at sea", "fog hides the road", "sun dries hay"]


def write(folder: Path, steps: int = 6, extra: str = "") -> Path:
    save_tiny(folder / "model")
    for name, texts in (("animals", ANIMALS), ("weather", WEATHER)):
        rows = [json.dumps({"text": t, "group": name}) for t in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    rows = [json.dumps({"prompt": t.rsplit(" ", 1)[0], "text": " " + t.rsplit(" ", 1)[1]}) for t in ANIMALS]
    (folder / "asked.jsonl").write_text("\n".join(rows))
    plan = folder / "plan.yaml"
    plan.write_text(PLAN.replace("STEPS", str(steps)) + extra)
    return plan


def suite(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def cell_folder(folder: Path, arm: str) -> Path:
    (found,) = (folder / "runs" / "tiny" / "cells").glob(f"*.{arm}.*")
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("run")
    write(folder)
    return folder, suite(folder, "run", "plan.yaml")


def test_a_run_ends_with_a_table_and_a_page(finished):
    folder, done = finished
    assert done.returncode == 0, done.stderr + done.stdout
    assert "cosine-rmu" in done.stdout and "report:" in done.stdout
    page = (folder / "runs/tiny/report/index.html").read_text()
    assert "cosine-rmu" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert (folder / "runs/tiny/results/records.parquet").exists()
    trained = cell_folder(folder, "cosine-rmu")
    assert json.loads((trained / "status.json").read_text())["state"] == "done"
    assert (trained / "patch.safetensors").exists()
    scalars = [json.loads(line) for line in (trained / "scalars.jsonl").read_text().splitlines()]
    assert [row["step"] for row in scalars] == list(range(6))
    assert scalars[-1]["scalars"]["cos_forget"] > scalars[0]["scalars"]["cos_forget"]
    assert len((trained / "scores/forget.jsonl").read_text().splitlines()) == len(ANIMALS)


def test_the_same_command_again_does_nothing(finished):
    folder, _ = finished
    patch = cell_folder(folder, "cosine-rmu") / "patch.safetensors"
    before = patch.stat().st_mtime_ns
    again = suite(folder, "run", "plan.yaml")
    assert again.returncode == 0 and patch.stat().st_mtime_ns == before
    assert "scoring" not in again.stdout


def test_a_killed_run_goes_on_to_the_same_bits(finished, tmp_path):
    folder, _ = finished
    write(tmp_path)
    process = subprocess.Popen(
        [*COMMAND, "run", "plan.yaml"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("runs/tiny/cells/*cosine*/checkpoints/*step000002*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = suite(tmp_path, "run", "plan.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    one, two = (cell_folder(f, "cosine-rmu") / "patch.safetensors" for f in (folder, tmp_path))
    assert one.read_bytes()[-4000:] == two.read_bytes()[-4000:]


FAULTY = """
from unlearn_suite import Config, Loss, LossObjective, ObjectiveSpec, Requirements, hookimpl

class Faulty(LossObjective[Config]):
    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1]), reads=1)
    def setup(self, ctx):
        super().setup(ctx)
        if "PLACE" == "setup":
            raise KeyError("no probe")
    def loss(self, batch):
        return 1 / 0

@hookimpl
def register_objectives(register):
    register(ObjectiveSpec(name="faulty-PLACE", summary="Raises", load=f"{__name__}:Faulty"))
"""
EXTRA_ARMS = """
  faulty-setup: {stages: [{use: faulty-setup, steps: 2}]}
  faulty-step: {stages: [{use: faulty-step, steps: 2}]}
  too-deep: {like: cosine-rmu, set: {0.with.block: 9}}
"""


@pytest.fixture(scope="module")
def partly_failed(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("failed")
    write(folder, steps=2, extra=EXTRA_ARMS)
    for place in ("setup", "step"):
        (folder / f"faulty_{place}.py").write_text(FAULTY.replace("PLACE", place))
    return folder, suite(folder, "run", "plan.yaml", "--plugin", "faulty_setup.py", "--plugin", "faulty_step.py")


def status(folder: Path, arm: str) -> dict:
    return json.loads((cell_folder(folder, arm) / "status.json").read_text())


@pytest.mark.parametrize(("place", "message"), [("setup", "KeyError"), ("step", "ZeroDivisionError")])
def test_a_plugin_that_raises_is_named_and_the_others_go_on(partly_failed, place, message):
    folder, done = partly_failed
    assert done.returncode == 1, done.stderr + done.stdout
    error = status(folder, f"faulty-{place}")["error"]
    assert message in error["message"] and f"faulty_{place}.py" in error["where"]
    assert status(folder, "cosine-rmu")["state"] == "done"
    assert "Traceback" not in done.stderr + done.stdout
    assert message in (folder / "runs/tiny/report/index.html").read_text()


def test_an_option_that_does_not_suit_the_model_is_one_clear_error(partly_failed):
    folder, done = partly_failed
    assert "block 9 does not exist" in status(folder, "too-deep")["error"]["message"]
    assert "block 9 does not exist" in done.stdout and "blocks 0 to 3" in done.stdout


def test_a_plugin_that_breaks_on_import_is_fatal_only_when_it_is_used(tmp_path):
    write(tmp_path, steps=2)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    listed = suite(tmp_path, "plugins", "list", "--plugin", "broken.py")
    assert listed.returncode == 0 and "broken" in listed.stdout and "nothing_of_that_name" in listed.stdout
    assert suite(tmp_path, "plan", "check", "plan.yaml", "--plugin", "broken.py").returncode == 0
    (tmp_path / "plan.yaml").write_text((tmp_path / "plan.yaml").read_text() + EXTRA_ARMS)
    used = suite(tmp_path, "plan", "check", "plan.yaml", "--plugin", "broken.py")
    assert used.returncode in (2, 3) and "faulty" in used.stderr


def test_two_workers_give_the_same_patch(finished, tmp_path):
    folder, _ = finished
    write(tmp_path, extra="compute: {workers: 2}\n")
    done = suite(tmp_path, "run", "plan.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    one, two = (cell_folder(f, "cosine-rmu") / "patch.safetensors" for f in (folder, tmp_path))
    assert one.read_bytes()[-4000:] == two.read_bytes()[-4000:]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("path: model}", "path: nowhere}"), 2, ["plan.yaml:4:", "nowhere"]),
        (("animals.jsonl", "missing.jsonl"), 2, ["plan.yaml:9:", "missing.jsonl"]),
        (("block: 2", "blok: 2"), 2, ["plan.yaml:18:", "blok", "did you mean 'block'"]),
        (("use: cloze", "use: clooze"), 2, ["plan.yaml:13:", "clooze", "cloze"]),
        (("want: lower", "want: less"), 2, ["plan.yaml:13:", "less"]),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path, change, code, words):
    plan = write(tmp_path, steps=2)
    assert change[0] in plan.read_text()
    plan.write_text(plan.read_text().replace(*change, 1))
    done = suite(tmp_path, "run", "plan.yaml")
    text = done.stdout + done.stderr
    assert done.returncode == code, text
    assert "Traceback" not in text
    for word in words:
        assert word in text


DEADLY = """
import os
from pathlib import Path
from unlearn_suite import Metric, MetricSpec, NoConfig, Row, ValueSpec, hookimpl

class Deadly(Metric[NoConfig]):
    def score(self, model, examples, seed):
        with Path("asked.txt").open("a") as file:
            print(len(examples), file=file)
        if examples[0].text == "text 256" and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), 9)
        for e, scores in zip(examples, model.rolling([e.text for e in examples])):
            yield Row(e.id, {"nll": scores.mean_nll})

@hookimpl
def register_metrics(register):
    register(MetricSpec("deadly", "kills", f"{__name__}:Deadly", {"nll": ValueSpec("x")}, by_example=True))
"""


def test_a_killed_scoring_computes_only_what_is_missing(tmp_path):
    save_tiny(tmp_path / "model")
    (tmp_path / "deadly.py").write_text(DEADLY)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": f"text {i}"}) for i in range(300)))
    (tmp_path / "plan.yaml").write_text("""
plan: 1
name: tiny
plugins: [deadly.py]
models: {tiny: {path: model}}
problems:
  - name: words
    data: {forget: {use: jsonl, with: {path: rows.jsonl}}}
    metrics: [{use: deadly, data: forget}, {use: perplexity, data: forget}]
arms: {base: {stages: []}}
""")
    assert suite(tmp_path, "run", "plan.yaml").returncode == -signal.SIGKILL
    assert len(list(cell_folder(tmp_path, "base").glob("partial/deadly.jsonl"))) == 1
    done = suite(tmp_path, "run", "plan.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "asked.txt").read_text().split() == ["256", "44", "44"]
    cell = cell_folder(tmp_path, "base")
    rows = [json.loads(line) for line in (cell / "scores/deadly.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"rows:{i}" for i in range(1, 301)]
    assert not (cell / "partial").exists()
