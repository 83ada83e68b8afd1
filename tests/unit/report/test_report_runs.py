"""summary.json, and runs in every state: only a base model, going on, torn, empty, changed."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from unlearn_suite.errors import PlanError
from unlearn_suite.report import print_table, write_report, write_summary

ReadPage = Callable[[str], Any]


def test_summary_json_holds_every_number(run_path: Path) -> None:
    data = json.loads(write_summary(run_path).read_text())
    found = {(r["problem"], r["arm"], r["metric"], r["value"]): r for r in data["results"]}
    result = found["everyday-knowledge", "cosine-rmu", "forget", "exact"]
    assert (result["n"], result["seeds"], result["want"]) == (60, 2, "lower")
    assert result["change"]["mean"] == pytest.approx(result["mean"] - result["base"]["mean"])
    assert result["lo"] <= result["mean"] <= result["hi"]
    assert result["verdict"] == {"state": "met", "word": "lower"}
    keep = found["everyday-toxicity", "probe-directions", "keep", "exact"]
    assert set(keep["groups"]) == {"animals", "astronomy", "chemical symbols", "opposites"}
    assert sum(group["n"] for group in keep["groups"].values()) == keep["n"]
    base = found["everyday-toxicity", "base", "toxicity", "mean"]
    assert base["seeds"] == 2 and base["change"] is None
    states = [c["state"] for c in data["cells"]]
    assert states.count("done") == 13 and states.count("failed") == 1
    assert next(c for c in data["cells"] if c["state"] == "failed")["error"]["code"] == "non-finite"


def test_sampled_scores_are_compared_with_the_base_of_their_own_seed(made: Any) -> None:
    base = made.cell("everyday-toxicity", "base", 0)
    made.share_base(base, 1)
    folders = [made.cell("everyday-toxicity", "cosine-rmu", seed) for seed in (0, 1)]
    for folder in folders:
        made.score(folder, only=("toxicity",))
    path = made.close()
    result = next(
        r
        for r in json.loads(write_summary(path).read_text())["results"]
        if (r["arm"], r["metric"], r["value"]) == ("cosine-rmu", "toxicity", "mean")
    )
    entry = {"use": "x/toxicity", "name": "toxicity"}
    before = [row["values"]["mean"] for seed in (0, 1) for row in made.rows(entry, "base", seed)]
    assert result["base"]["mean"] == pytest.approx(sum(before) / len(before))


def grouped(values: dict[tuple[str, str], float]) -> list[dict[str, Any]]:
    return [
        {"id": f"{unit}/{group}", "unit": unit, "group": group, "values": {"exact": value}}
        for (unit, group), value in values.items()
    ]


def test_a_unit_of_several_groups_counts_in_each_with_the_rows_of_that_group(made: Any) -> None:
    base = made.cell("everyday-knowledge", "base", 0)
    before = {("one", "a"): 1.0, ("one", "b"): 0.0, ("two", "b"): 1.0, ("two", "a"): 1.0, ("six", "a"): 1.0}
    base.write_scores("keep", grouped(before))
    base.publish_shared("keep", "k-keep")
    arm = made.cell("everyday-knowledge", "cosine-rmu", 0)
    arm.write_scores("keep", grouped({("one", "a"): 0.5, ("one", "b"): 0.25, ("two", "b"): 0.75, ("two", "a"): 0.0}))
    path = made.close()
    results = json.loads(write_summary(path).read_text())["results"]
    found = {r["arm"]: r["groups"] for r in results if (r["metric"], r["value"]) == ("keep", "exact")}
    assert {name: (g["n"], g["mean"]) for name, g in found["base"].items()} == {"a": (3, 1.0), "b": (2, 0.5)}
    told = {name: (g["n"], g["mean"], g["base"]["mean"], g["paired"]) for name, g in found["cosine-rmu"].items()}
    assert told == {"a": (2, 0.25, 1.0, 2), "b": (2, 0.5, 0.5, 2)}


def test_of_many_groups_the_page_says_how_many_it_leaves_out(made: Any, read_page: ReadPage) -> None:
    base = made.cell("everyday-knowledge", "base", 0)
    base.write_scores("keep", grouped({(f"u{i}", f"group {i:02}"): 1.0 for i in range(83)}))
    path = made.close()
    words = read_page(write_report(path).read_text()).words
    assert "keep exact by group (83 groups)" in words and "group 79" in words and "group 80" not in words
    assert "1.000 too few items 3 more in results/summary.json." in words
    (result,) = json.loads(write_summary(path).read_text())["results"]
    assert len(result["groups"]) == 83
    assert result["groups"]["group 80"] | {"lo": 0} == result["groups"]["group 79"] | {"lo": 0}
    assert result["groups"]["group 80"]["lo"] is None and result["lo"] == 1.0


def test_of_one_item_no_interval_is_shown_and_nothing_is_clear(tmp_path: Path, build: Callable[..., Path]) -> None:
    path = build(tmp_path, items=1)
    data = json.loads(write_summary(path).read_text())
    found = {(r["problem"], r["arm"], r["metric"], r["value"]): r for r in data["results"]}
    one = found["everyday-knowledge", "gradient-ascent", "keep", "nll"]
    assert one["seeds"] == 1 and one["change"]["mean"] and one["change"]["lo"] is one["change"]["hi"] is None
    verdicts = [r["verdict"] for r in data["results"] if r["seeds"] == 1 and r["verdict"]]
    assert verdicts and {v["state"] for v in verdicts} == {"unclear"}
    file = io.StringIO()
    print_table(path, Console(width=80, file=file, force_terminal=False))
    lines = file.getvalue().splitlines()
    assert any("too few items ? unclear" in line for line in lines) and max(map(len, lines)) <= 80
    assert "too few items" in write_report(path).read_text()


def test_only_a_base_model(made: Any, read_page: ReadPage) -> None:
    made.score(made.cell("everyday-knowledge", "base", 0))
    page = write_report(made.close()).read_text()
    assert "there is nothing to compare yet" in read_page(page).words
    assert "forget exact" in page


def test_a_run_that_is_going_on_and_has_torn_files(made: Any, read_page: ReadPage) -> None:
    made.score(made.cell("everyday-knowledge", "base", 0))
    going = made.cell("everyday-knowledge", "cosine-rmu", 0, state="running", seconds={})
    made.train(going, 9)
    with (going.path / "scalars.jsonl").open("a") as file:
        file.write('{"stage": 0, "step": 9, "scal')
    made.score(going, only=("keep",))
    broken = made.cell("everyday-knowledge", "probe-directions", 0)
    made.score(broken, only=("forget", "keep"))
    rows = broken.scores_path("keep").read_text().splitlines()
    broken.scores_path("keep").write_text("\n".join(["{torn", *rows[1:]]) + "\n")
    (made.cell("everyday-knowledge", "gradient-ascent", 0).path / "status.json").write_text("")
    path = made.close()
    words = read_page(write_report(path).read_text()).words
    assert "▸ running" in words
    assert "Files that could not be read whole" in words
    assert "gradient-ascent no result to compare yet (pending)" in words
    print_table(path, Console(file=io.StringIO()))


def test_a_run_without_cells_and_a_folder_that_is_no_run(made: Any, tmp_path: Path) -> None:
    path = made.close()
    assert "This run has no cells yet" in write_report(path).read_text()
    with pytest.raises(PlanError):
        write_report(tmp_path / "elsewhere")


def test_cells_of_an_earlier_plan_are_left_out(made: Any) -> None:
    made.score(made.cell("everyday-knowledge", "base", 0))
    made.score(made.cell("everyday-knowledge", "cosine-rmu", 0))
    made.listed.pop()
    arms = {r["arm"] for r in json.loads(write_summary(made.close()).read_text())["results"]}
    assert arms == {"base"}


def test_of_an_arm_that_was_renamed_only_the_new_name_is_shown(made: Any) -> None:
    made.score(made.cell("everyday-knowledge", "base", 0))
    old = made.cell("everyday-knowledge", "cosine-rmu", 0)
    made.score(old)
    made.listed.pop()  # its id is the new one's
    new = made.run.cell_dir({**old.cell, "arm": "gradient-ascent"})
    new.set_status(state="done", error=None)
    made.listed.append({"id": old.cell["id"], "folder": new.path.name})
    made.score(new)
    arms = {r["arm"] for r in json.loads(write_summary(made.close()).read_text())["results"]}
    assert arms == {"base", "gradient-ascent"}


def test_a_page_of_twenty_thousand_rows_takes_seconds(build: Callable[..., Path], tmp_path: Path) -> None:
    path = build(tmp_path, items=400)
    start = time.process_time()
    write_report(path)
    assert time.process_time() - start < 15  # about 1 s of one slow core; anything quadratic takes minutes


def test_texts_may_come_with_their_scores(made: Any) -> None:
    base = made.cell("everyday-toxicity", "base", 0)
    made.score(base)
    texts = [{"text": "rude <i>", "score": 0.83}, {"text": "", "score": 0.01}]
    rows = [{"id": f"prompt-{i}", "prompt": "say", "continuations": texts} for i in range(3)]
    path = made.path / "shared" / "scores" / "k-toxicity-s0" / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(made.close()).read_text()
    assert 'class="warning"' in page and "score 0.83" in page
    assert "rude &lt;i&gt;" in page and "(empty)" in page
