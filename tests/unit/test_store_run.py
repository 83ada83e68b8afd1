"""The run directory: who may write it, what it keeps, and what is read back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.errors import PlanError, PrerequisiteError
from unlearn_suite.store import CellDir, RunDir, read_records, write_json, write_records
from unlearn_suite.study import Cell


def make_cell(arm: str = "base", **changes: Any) -> Cell:
    metrics = [
        {"name": "cloze", "use": "b/cloze", "with": {}, "data": "f", "want": "lower", "show": [], "key": "k1"},
        {"name": "ppl", "use": "b/perplexity", "with": {}, "data": "g", "want": "keep", "show": [], "key": "k2"},
    ]
    fields: dict[str, Any] = {
        "id": f"id-{arm}", "problem": "p", "model": "m", "arm": arm, "seed": 0, "model_ref": {}, "data": {},
        "stages": [], "metrics": metrics, "precision": "fp32", "compute": {}, "plugins": {}, "summary": {},
    }  # fmt: skip
    return Cell(**{**fields, **changes})


def row(name: str, score: float, **more: Any) -> dict[str, Any]:
    return {"id": name, "values": {"exact": score, "nll": 2 * score}, "weight": 3.0, "group": "g", "unit": "u", **more}


HOLD = """
import sys, time, pathlib
from unlearn_suite.store import RunDir
run = RunDir.open(pathlib.Path(sys.argv[1]), "r")
print("held", flush=True)
time.sleep(60)
"""


def test_two_commands_on_one_run(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        with pytest.raises(PrerequisiteError) as caught:
            RunDir.open(tmp_path, "r")
        assert caught.value.code == "run-locked" and "another" in caught.value.message and caught.value.hint
        assert RunDir.attach(tmp_path / "r").info["name"] == "r"
        other.kill()
    with RunDir.open(tmp_path, "r") as run:
        assert [e["event"] for e in run.events()] == ["start", "continue"]


def test_close_gives_the_run_back(tmp_path: Path) -> None:
    RunDir.open(tmp_path, "r").close()
    RunDir.open(tmp_path, "r").close()


def test_run_json_keeps_its_birth_and_says_who_ran(tmp_path: Path) -> None:
    with RunDir.open(tmp_path, "r", command=["a", "b"]) as run:
        first = run.info
        write_json(run.path / "run.json", {**run.info, "extra": 1})
    with RunDir.open(tmp_path, "r", command=["c"]) as run:
        assert run.info["created"] == first["created"] and run.info["extra"] == 1
        assert (first["command"], run.info["command"]) == (["a", "b"], ["c"])
        assert {"format", "suite", "python", "platform"} <= set(first)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("hello")
    (tmp_path / "file").write_text("hello")
    for name in ("thesis", "file"):
        with pytest.raises(PlanError, match="not a run"):
            RunDir.open(tmp_path, name)
    with pytest.raises(PlanError, match="not a run"):
        RunDir.attach(tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with RunDir.open(tmp_path, "r") as run:
        write_json(run.path / "run.json", {**run.info, "format": 99})
    with pytest.raises(PrerequisiteError, match="99"):
        RunDir.open(tmp_path, "r")
    with pytest.raises(PrerequisiteError, match="99"):
        RunDir.attach(tmp_path / "r")


def test_plans_are_kept_when_they_change(tmp_path: Path) -> None:
    with RunDir.open(tmp_path, "r") as run:
        kept = [run.save_plan(text, {"text": text}).name for text in ("a: 1\n", "a: 1\n", "a: 2\n", "a: 1\n")]
        assert kept == ["001.yaml", "001.yaml", "002.yaml", "003.yaml"]
        assert (run.path / "plans" / "002.yaml").read_text() == "a: 2\n"
        assert '"a: 1\\n"' in (run.path / "plan.lock.json").read_text()


def test_cell_by_object_and_by_json_is_one_folder(tmp_path: Path) -> None:
    with RunDir.open(tmp_path, "r") as run:
        cell = make_cell()
        first, second = run.cell_dir(cell), run.cell_dir(cell.to_json())
        assert first.path == second.path and first.path.name == cell.folder
        assert Cell.from_json(first.cell) == cell and first.status == {"state": "pending"}
        assert [found.path for found in run.cells()] == [first.path]
        with pytest.raises(ValueError, match="folder name"):
            run.cell_dir(make_cell(arm="../../x"))


def test_status_merges(tmp_path: Path) -> None:
    cell_dir = CellDir(tmp_path)
    cell_dir.set_status(state="running", step=1)
    assert cell_dir.set_status(step=2) == cell_dir.status == {"state": "running", "step": 2}
    (tmp_path / "status.json").write_text("")
    assert cell_dir.status == {"state": "pending"}


def test_resume_drops_the_steps_that_are_done_again(tmp_path: Path) -> None:
    cell_dir = CellDir(tmp_path)
    cell_dir.truncate_scalars(0, 0)
    for stage, step in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]:
        cell_dir.append_scalars(stage, step, {"loss": stage + step / 10})
    cell_dir.truncate_scalars(1, 1)
    assert [(r["stage"], r["step"]) for r in cell_dir.scalars()] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert cell_dir.scalars()[-1]["scalars"] == {"loss": 1.0}


def test_scores_round_trip_under_any_label(tmp_path: Path) -> None:
    cell_dir = CellDir(tmp_path)
    for label in ("plain", "lm-eval/arc_easy", "../up", "a b%2F", "a b/"):
        assert not cell_dir.has_scores(label)
        cell_dir.write_scores(label, [row("x", 1.0, sample={"output": "<b>"}), row("y", float("nan"))])
        assert cell_dir.has_scores(label)
        scores = cell_dir.scores(label)
        assert scores[0] == {"id": "x", "group": "g", "unit": "u", "weight": 3.0, "values": {"exact": 1.0, "nll": 2.0}}
        assert scores[1]["values"]["exact"] != scores[1]["values"]["exact"]
        assert cell_dir.samples(label) == [{"id": "x", "output": "<b>"}]
    assert len(cell_dir.status["scored"]) == 5 and len(list((tmp_path / "scores").iterdir())) == 5
    cell_dir.write_scores("plain", [])
    assert cell_dir.scores("plain") == [] and cell_dir.samples("plain") == []
    assert len(cell_dir.status["scored"]) == 5


def test_rows_of_an_unfinished_entry_are_kept_until_it_is_whole(tmp_path: Path) -> None:
    cell = CellDir(tmp_path / "cell")
    row = {"id": "a", "values": {"x": 0.1}, "weight": 1.0, "group": "", "unit": "", "sample": {}}
    assert cell.kept_rows("m/x") == ([], 0)
    cell.keep_rows("m/x", [row], 2)
    cell.keep_rows("m/x", [{**row, "id": "c"}], 4)
    with cell.partial_path("m/x").open("a") as file:
        file.write('{"covered": 6, "ro')  # a kill in the middle of writing
    rows, covered = cell.kept_rows("m/x")
    assert ([r["id"] for r in rows], covered) == (["a", "c"], 4) and rows[0] == row
    assert not cell.has_scores("m/x") and cell.products() == []
    cell.write_scores("m/x", rows)
    assert cell.kept_rows("m/x") == ([], 0) and not (cell.path / "partial").exists()


def test_missing_products_are_noticed(tmp_path: Path) -> None:
    cell_dir = CellDir(tmp_path)
    cell_dir.write_scores("cloze", [row("x", 1.0)])
    cell_dir.patch_path.write_bytes(b"p")
    cell_dir.set_status(files=cell_dir.products())
    assert cell_dir.products() == ["patch.safetensors", "samples/cloze.jsonl", "scores/cloze.jsonl"]
    assert cell_dir.missing() == []
    cell_dir.scores_path("cloze").unlink()
    assert cell_dir.missing() == ["scores/cloze.jsonl"]


def test_shared_scores(tmp_path: Path) -> None:
    with RunDir.open(tmp_path, "r") as run:
        first, second = run.cell_dir(make_cell("base")), run.cell_dir(make_cell("other"))
        assert not first.copy_shared("cloze", "key")
        first.write_scores("cloze", [row("x", 1.0, sample={"t": 1})])
        first.publish_shared("cloze", "key")
        assert (run.shared_scores("key") / "rows.jsonl").exists()
        assert second.copy_shared("renamed", "key") and second.status["scored"] == ["renamed"]
        assert second.scores("renamed") == first.scores("cloze") and second.samples("renamed")


SHARE = """
import sys, time, pathlib
from unlearn_suite.store import RunDir
run = RunDir.attach(pathlib.Path(sys.argv[1]))
made = pathlib.Path(sys.argv[1]) / "made"
print("ready", flush=True)
sys.stdin.readline()
with run.shared_lock("k"):
    if not made.exists():
        time.sleep(0.3)
        made.touch()
        print("computed", flush=True)
    else:
        print("found", flush=True)
"""


def test_shared_lock_lets_one_process_compute(tmp_path: Path) -> None:
    RunDir.open(tmp_path, "r").close()
    command = [sys.executable, "-c", SHARE, str(tmp_path / "r")]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout and process.stdout.readline() == "ready\n"
    said = sorted(process.communicate("go\n")[0].strip() for process in both)
    assert said == ["computed", "found"]


def test_whoever_waits_for_a_shared_lock_may_give_up(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with RunDir.open(tmp_path, "r") as run, run.shared_lock("k"):
        other = RunDir.attach(run.path)
        with pytest.raises(KeyboardInterrupt), other.shared_lock("k", stop):
            raise AssertionError("it is taken")


def test_cell_lock(tmp_path: Path) -> None:
    cell_dir = CellDir(tmp_path / "c")
    with cell_dir.lock(), pytest.raises(PrerequisiteError, match="another process"), CellDir(tmp_path / "c").lock():
        pass
    with cell_dir.lock():
        pass


def test_records_of_a_partial_run(tmp_path: Path) -> None:
    with RunDir.open(tmp_path, "r") as run:
        base, other, _ = (run.cell_dir(make_cell(arm)) for arm in ("base", "rmu", "pending"))
        base.write_scores("cloze", [row("x", 1.0), row("y", 0.0)])
        base.write_scores("ppl", [row("z", 5.0)])
        other.write_scores("cloze", [row("x", float("nan"))])
        table = read_records(write_records(run))
        assert table.num_rows == 2 * 4 and str(table.schema.field("arm").type).startswith("dictionary")
        found = [r for r in table.to_pylist() if (r["arm"], r["metric"], r["value"]) == ("base", "ppl", "nll")]
        assert found == [{
            "run": "r", "cell": "id-base", "problem": "p", "model": "m", "arm": "base", "seed": 0, "metric": "ppl",
            "use": "b/perplexity", "value": "nll", "example": "z", "group": "g", "unit": "u", "weight": 3.0,
            "score": 10.0,
        }]  # fmt: skip
        only = read_records(write_records(run, cells=[other.path.name]))
        assert only.num_rows == 2 and set(only.column("arm").to_pylist()) == {"rmu"}
        assert read_records(write_records(run, cells=[])).num_rows == 0


def test_the_store_is_light() -> None:
    code = "import sys, unlearn_suite.store; print([m for m in ('torch', 'pyarrow', 'rich') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
