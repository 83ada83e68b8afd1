"""Cells: their order, and ids that change with what matters and with nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite import DatasetSpec, PluginError
from unlearn_suite.plan import dump_resolved, load_plan
from unlearn_suite.study import Cell, build_cells, content_hash

PLAN = """\
plan: 1
seeds: [3, 5]
models: {one: {asset: a}, two: {asset: b}}
problems: [everyday]
arms:
  rmu: {stages: [{use: rmu, steps: 5, with: {block: 1}}]}
  base: {stages: []}
compute: {workers: 1}
"""

Build = Callable[..., list[Cell]]


def identity(ref: Mapping[str, Any]) -> str:
    return "content-" + json.dumps(ref, sort_keys=True)


@pytest.fixture()
def build(write: Callable[..., Path], make_catalog: Callable[..., Any]) -> Build:
    def build_from(text: str = PLAN, version: str = "1.0", *more: Any) -> list[Cell]:
        plan = load_plan(write(text), make_catalog(version, *more))
        return build_cells(plan, identity=identity)

    return build_from


def key(cells: list[Cell], arm: str, metric: str, seed: int) -> str:
    cell = next(c for c in cells if c.arm == arm and c.seed == seed and c.model == "one")
    return str(next(m for m in cell.metrics if m["name"] == metric)["key"])


def trained(cells: list[Cell]) -> Cell:
    return next(cell for cell in cells if not cell.is_base)


def test_order_and_names(build: Build) -> None:
    cells = build()
    assert [(c.problem, c.model, c.arm, c.seed) for c in cells] == [
        ("everyday", "one", "base", 3),
        ("everyday", "one", "rmu", 3),
        ("everyday", "one", "rmu", 5),
        ("everyday", "two", "base", 3),
        ("everyday", "two", "rmu", 3),
        ("everyday", "two", "rmu", 5),
    ]
    assert len({cell.id for cell in cells}) == 6
    assert all(len(cell.id) == 10 and int(cell.id, 16) >= 0 for cell in cells)
    assert cells[1].folder == f"everyday.one.rmu.s3.{cells[1].id}"


def test_a_cell_holds_everything_resolved_and_goes_through_json(build: Build) -> None:
    cell = trained(build())
    assert cell.stages[0]["use"] == "fake/rmu"
    assert cell.stages[0]["with"]["meta"] == "relearn"
    assert cell.stages[0]["train"]["steps"] == 5
    assert cell.stages[0]["train"]["lr"] == 1e-4  # the objective's own default
    assert [item["with"]["word"] for item in cell.data["retain"]] == ["moon", "star"]
    assert [(m["name"], m["data"], m["want"], m["show"]) for m in cell.metrics] == [
        ("recall", "forget", "lower", ["nll", "exact"]),
        ("sampled", "retain", "keep", ["mean"]),
    ]
    assert cell.metrics[0]["values"]["nll"]["summary"] == "NLL"
    assert cell.plugins["fake"] == "1.0"
    assert set(cell.plugins) == {"fake", "unlearn-suite"}
    again = Cell.from_json(json.loads(json.dumps(cell.to_json())))
    assert again == cell


def test_null_drops_a_metric_entry_and_a_role(build: Build) -> None:
    change = "{use: everyday, data: {retain: null, more: {use: toy}}, metrics: {sampled: null}}"
    cell = build(f"plan: 1\nproblems: [{change}]\narms: {{base: {{stages: []}}}}\n")[0]
    assert list(cell.data) == ["forget", "more"]
    assert [metric["name"] for metric in cell.metrics] == ["recall"]


def test_chat_turns_are_of_a_problem_and_of_its_scores(build: Build, write: Any, make_catalog: Any) -> None:
    chat = PLAN.replace("problems: [everyday]", "problems: [{use: everyday, chat: true}]")
    turns, plain = trained(build(chat)), trained(build())
    assert turns.chat and not plain.chat
    assert turns.id != plain.id
    assert turns.metrics[0]["key"] != plain.metrics[0]["key"]
    no = PLAN.replace("problems: [everyday]", "problems: [{use: everyday, chat: false}]")
    assert trained(build(no)).id == plain.id
    again = dump_resolved(load_plan(write(chat), make_catalog()))
    assert trained(build(again)).id == turns.id


@pytest.mark.parametrize(
    "change",
    [
        ("workers: 1", "workers: 4, threads: 2, device: cpu, eval_tokens: 64"),
        ("steps: 5,", "steps: 5, save_every: 2,"),
        ("steps: 5,", "steps: 5, keep: memory,"),
        ("steps: 5,", "steps: 5, keep: disk,"),
        ("plan: 1\n", "plan: 1\nname: other\n"),
        ("rmu: {", "renamed: {"),
        ("one: {asset: a}", "renamed: {asset: a}"),
        ("problems: [everyday]", "problems: [{use: fake/everyday, as: renamed}]"),
        ("problems: [everyday]", "problems: [{use: everyday, metrics: {recall: {show: [exact], want: keep}}}]"),
        ("block: 1", "block: 1, meta: relearn"),
        ("use: rmu, steps: 5, with: {block: 1}", "with: {block: 1}, steps: 5, use: fake/rmu"),
        ("rmu: {", "# a comment\n  rmu: {"),
    ],
)
def test_ids_do_not_change_with_what_cannot_change_a_result(build: Build, change: tuple[str, str]) -> None:
    assert change[0] in PLAN
    assert [cell.id for cell in build(PLAN.replace(*change))] == [cell.id for cell in build()]


@pytest.mark.parametrize(
    "change",
    [
        ("workers: 1", "precision: bf16"),
        ("steps: 5", "steps: 6"),
        ("steps: 5", "steps: 5, keep: off"),
        ("steps: 5", "steps: 5, optimizer: adamw8bit"),
        ("steps: 5", "steps: 5, lr: 2e-4"),
        ("block: 1", "block: 2"),
        ("block: 1", "block: 1, meta: none"),
        ("asset: a", "asset: c"),
        ("[3, 5]", "[4, 5]"),
        ("problems: [everyday]", "problems: [{use: everyday, data: {forget: {with: {count: 4}}}}]"),
        ("problems: [everyday]", "problems: [{use: everyday, data: {more: {use: toy}}}]"),
        ("problems: [everyday]", "problems: [{use: everyday, metrics: {recall: {with: {tokens: 9}}}}]"),
        ("compute:", "metrics: [speed]\ncompute:"),
    ],
)
def test_ids_change_with_what_can_change_a_result(build: Build, change: tuple[str, str]) -> None:
    assert change[0] in PLAN
    assert trained(build(PLAN.replace(*change))).id != trained(build()).id


def test_ids_change_with_the_version_of_a_plugin(build: Build) -> None:
    assert not {cell.id for cell in build(PLAN, "1.1")} & {cell.id for cell in build()}


def test_keys_of_base_scores_are_shared_where_they_can_be(build: Build) -> None:
    cells = build()
    assert key(cells, "base", "recall", 3) == key(cells, "rmu", "recall", 3) == key(cells, "rmu", "recall", 5)
    assert key(cells, "base", "sampled", 3) == key(cells, "rmu", "sampled", 3)
    assert key(cells, "rmu", "sampled", 3) != key(cells, "rmu", "sampled", 5)  # sampled text: the seed matters
    slower = build(PLAN.replace("block: 1", "block: 2"))
    assert key(slower, "rmu", "recall", 3) == key(cells, "rmu", "recall", 3)
    longer = build(PLAN.replace("[everyday]", "[{use: everyday, data: {forget: {with: {count: 4}}}}]"))
    assert key(longer, "rmu", "recall", 3) != key(cells, "rmu", "recall", 3)
    assert key(longer, "rmu", "sampled", 3) == key(cells, "rmu", "sampled", 3)
    assert len({m["key"] for cell in cells if cell.model == "one" for m in cell.metrics}) == 3


def test_a_data_file_is_known_by_its_content_not_its_place(build: Build) -> None:
    Path("here").mkdir()
    for name, text in [("a.txt", "x"), ("here/b.txt", "x"), ("c.txt", "y")]:
        Path(name).write_text(text)
    problem = "[{use: everyday, data: {forget: {use: lines, with: {path: FILE}}}}]"
    text = PLAN.replace("[everyday]", problem)
    ids = [trained(build(text.replace("FILE", name))).id for name in ("a.txt", "here/b.txt", "c.txt")]
    assert ids[0] == ids[1] != ids[2]


def test_paths_are_taken_from_the_plans_folder(build: Build, tmp_path: Path) -> None:
    Path("a.txt").write_text("x")
    text = PLAN.replace("[everyday]", "[{use: everyday, data: {forget: {use: lines, with: {path: ./a.txt}}}}]")
    assert trained(build(text)).data["forget"][0]["with"] == {"path": str(tmp_path / "work" / "a.txt")}


def test_a_plan_shown_in_full_gives_the_same_cells(build: Build, write: Callable[..., Path], catalog: Any) -> None:
    shown = dump_resolved(load_plan(write(PLAN), catalog))
    assert [cell.folder for cell in build(shown)] == [cell.folder for cell in build()]


def test_base_only_once_and_default_arms(build: Build) -> None:
    cells = build("plan: 1\nseeds: [0, 1]\nproblems: [everyday]\n")
    assert [(cell.arm, cell.seed) for cell in cells] == [("base", 0), ("default", 0), ("default", 1)]
    assert cells[0].model_ref == {"asset": "smollm2-135m-instruct"}
    assert cells[1].stages[0]["train"]["steps"] == 10


def test_a_dataset_that_raises_is_its_plugins_error(build: Build) -> None:
    more = DatasetSpec("bad", "raises", "fake_plan_plugin:load_lines")
    text = PLAN.replace("[everyday]", "[{use: everyday, data: {forget: {use: bad}}}]")
    with pytest.raises(PluginError, match="dataset 'bad' raised AttributeError") as caught:
        build(text, "1.0", more)
    assert caught.value.where.startswith("fake")


def test_examples_that_cannot_be_hashed_are_their_plugins_error(build: Build) -> None:
    more = DatasetSpec("odd", "meta is an object", "fake_plan_plugin:load_odd")
    text = PLAN.replace("[everyday]", "[{use: everyday, data: {forget: {use: odd}}}]")
    with pytest.raises(PluginError, match="dataset 'fake/odd' has an example whose `meta` is not plain data"):
        build(text, "1.0", more)


def test_content_hash_of_folders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "x.bin").write_bytes(b"1")
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")
    (tmp_path / "b" / "sub" / "x.bin").rename(tmp_path / "b" / "x.bin")
    assert content_hash(tmp_path / "a") != content_hash(tmp_path / "b")
