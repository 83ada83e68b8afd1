"""`plan show`: a plan with everything written out, and `plan schema`: what a plan may say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.errors import PlanErrors
from unlearn_suite.plan import dump_resolved, load_plan, plan_schema

PLAN = """\
plan: 1
seeds: [0, 1]
models: {local: {path: weights}, hub: {hf: a/b, revision: "1e10"}}
problems:
  - everyday
  - name: mine
    data: {forget: {use: toy, with: {word: "no"}}, retain: {use: lines, with: {path: a.txt}}}
    metrics: [{use: cloze, data: forget}]
arms:
  base: {stages: []}
  rmu: {stages: [{use: rmu, with: {block: 7, alpha: 1e-5}, steps: 60}]}
  gentle: {like: rmu, set: {0.with.meta: none, 0.with.warm.rate: 0.25, 0.lr: 1e-3}, only: [everyday]}
metrics: [speed]
compute: {threads: 2}
expect: [{problem: everyday, arm: rmu, metric: recall, of: change, above: 0.1}]
"""

SHOWN = """\
plan: 1
name: plan
seeds: [0, 1]
models:
  local:
    path: {folder}/weights
  hub:
    hf: a/b
    revision: '1e10'
problems:
- name: everyday
  summary: Forget one subject.
  data:
    forget:
      use: fake/toy
      with:
        count: 2
        word: sun
    retain:
    - use: fake/toy
      with:
        count: 3
        word: moon
    - use: fake/toy
      with:
        count: 3
        word: star
  metrics:
  - name: recall
    use: fake/cloze
    data: forget
    with:
      tokens: 8
    want: lower
    show: [nll, exact]
  - name: sampled
    use: fake/sampled
    data: retain
    with: {}
    want: keep
    show: [mean]
  - name: speed
    use: fake/speed
    with: {}
    want: keep
    show: [rate]
- name: mine
  summary: ''
  data:
    forget:
      use: fake/toy
      with:
        count: 3
        word: 'no'
    retain:
      use: fake/lines
      with:
        path: {folder}/a.txt
  metrics:
  - name: cloze
    use: fake/cloze
    data: forget
    with:
      tokens: 8
    want: keep
    show: [exact]
  - name: speed
    use: fake/speed
    with: {}
    want: keep
    show: [rate]
arms:
  base:
    stages: []
  rmu:
    stages:
    - use: fake/rmu
      steps: 60
      lr: 0.0001
      batch: 8
      micro_batch: null
      length: 128
      end: false
      warmup: 0
      clip: 1.0
      weight_decay: 0.0
      betas: [0.9, 0.999]
      lora: null
      recompute: false
      keep: auto
      optimizer: adamw
      compile: false
      save_every: 25
      diagnostics: null
      stop: null
      with:
        block: 7
        alpha: 1.0e-05
        meta: relearn
        blocks: null
        fork_every: 4
        warm:
          rate: 0.5
  gentle:
    stages:
    - use: fake/rmu
      steps: 60
      lr: 0.001
      batch: 8
      micro_batch: null
      length: 128
      end: false
      warmup: 0
      clip: 1.0
      weight_decay: 0.0
      betas: [0.9, 0.999]
      lora: null
      recompute: false
      keep: auto
      optimizer: adamw
      compile: false
      save_every: 25
      diagnostics: null
      stop: null
      with:
        block: 7
        alpha: 1.0e-05
        meta: none
        blocks: null
        fork_every: 4
        warm:
          rate: 0.25
    only: [everyday]
compute:
  precision: fp32
  device: auto
  threads: 2
  executor: local
  workers: 1
  devices: 1
  eval_tokens: 2048
  patches: keep
expect:
- problem: everyday
  arm: rmu
  metric: recall
  value: nll
  of: change
  above: 0.1
"""


def test_a_plan_in_full(write: Callable[..., Path], catalog: Any, tmp_path: Path) -> None:
    path = write(PLAN)
    (path.parent / "weights").mkdir()
    (path.parent / "a.txt").write_text("x")
    shown = dump_resolved(load_plan(path, catalog))
    assert shown == SHOWN.replace("{folder}", str(tmp_path / "work"))
    assert dump_resolved(load_plan(write(shown), catalog)) == shown


def test_defaults_of_the_smallest_plan(write: Callable[..., Path], catalog: Any) -> None:
    plan = load_plan(write("plan: 1\nproblems: [everyday]\n", "my plan.v2.yaml"), catalog)
    assert plan.name == "my-plan.v2"
    assert [arm.name for arm in plan.arms] == ["base", "default"]
    assert [stage.spec.name for stage in plan.arms[1].stages_for(plan.problems[0])] == ["rmu"]
    shown = dump_resolved(plan)
    assert "arms:\n  base:\n    stages: []\n  default:\n    stages: default\n" in shown
    assert dump_resolved(load_plan(write(shown), catalog)) == shown


def test_a_change_of_the_dataset_replaces_its_options(write: Callable[..., Path], catalog: Any) -> None:
    Path("a.txt").write_text("x")
    changes = "data: {forget: {use: lines, with: {path: a.txt}}, retain: {use: toy}}, metrics: {recall: {want: keep}}"
    plan = load_plan(write(f"plan: 1\nproblems: [{{use: everyday, as: e, {changes}}}]\n"), catalog)
    (problem,) = plan.problems
    assert [use.spec.name for use in problem.data["forget"]] == ["lines"]
    assert len(problem.data["retain"]) == 1
    assert [(metric.name, metric.want, metric.show) for metric in problem.metrics] == [
        ("recall", "keep", ("nll", "exact")),
        ("sampled", "keep", ("mean",)),
    ]


def test_a_plan_adds_metric_entries_to_a_problem(write: Callable[..., Path], catalog: Any) -> None:
    added = "metrics: {asked: {use: cloze, data: forget, want: lower}}"
    plan = load_plan(write(f"plan: 1\nproblems: [{{use: everyday, {added}}}]\n"), catalog)
    assert [(metric.name, metric.want) for metric in plan.problems[0].metrics][-1] == ("asked", "lower")


def test_a_metric_that_a_problem_brings_already_is_not_added_twice(write: Callable[..., Path], catalog: Any) -> None:
    plan = load_plan(write("plan: 1\nproblems: [everyday]\nmetrics: [sampled, speed]\n"), catalog)
    assert [metric.name for metric in plan.problems[0].metrics] == ["recall", "sampled", "speed"]


def test_plugin_files_are_loaded_before_names_are_looked_up(write: Callable[..., Path], catalog: Any) -> None:
    Path("mine.py").write_text("")
    path = write("plan: 1\nplugins: [./mine.py]\nproblems: [everyday]\n")
    asked: list[Path] = []

    def make(files: Any) -> Any:
        asked.extend(files)
        return catalog

    assert load_plan(path, make).plugins == (Path("mine.py").resolve(),)
    assert asked == [Path("mine.py").resolve()]
    with pytest.raises(PlanErrors, match="no such file"):
        load_plan(Path("none.yaml"), make)


def test_schema_knows_every_option(catalog: Any) -> None:
    schema = plan_schema(catalog)
    json.dumps(schema)
    rmu = schema["$defs"]["objective:fake/rmu"]
    assert rmu["properties"]["use"]["enum"] == ["rmu", "fake/rmu"]
    assert rmu["required"] == ["use", "with"]
    options = rmu["properties"]["with"]
    assert options["properties"]["block"] == {
        "description": "block that is read, counted from 0",
        "title": "Block",
        "type": "integer",
    }
    assert options["additionalProperties"] is False
    assert options["required"] == ["block"]
    assert rmu["properties"]["steps"]["default"] == 40
    assert rmu["properties"]["batch"]["default"] == 8
    assert schema["$defs"]["metric:fake/cloze"]["properties"]["show"]["items"] == {"enum": ["exact", "nll"]}
    assert schema["properties"]["problems"]["items"]["anyOf"][0] == {"enum": ["everyday", "fake/everyday"]}


def test_schema_refers_only_to_what_it_defines(catalog: Any) -> None:
    schema = plan_schema(catalog)
    text = json.dumps(schema)
    refs = {part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}
    assert refs
    assert refs <= set(schema["$defs"])
    assert schema["required"] == ["plan", "problems"]
