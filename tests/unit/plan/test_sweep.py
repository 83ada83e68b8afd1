"""Swept arms: one arm per value or combination, their names, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.plan import load_plan
from unlearn_suite.plan.show import dump_resolved
from unlearn_suite.study import build_cells

HEAD = "plan: 1\nproblems: [everyday]\n"
RMU = "stages: [{use: rmu, lr: 0.1, with: {block: 2}}]"


def arms_of(write: Callable[..., Path], catalog: Any, arms: str) -> Any:
    return load_plan(write(f"{HEAD}arms:\n{arms}"), catalog)


def test_one_arm_for_each_value(write, catalog):
    plan = arms_of(
        write, catalog, f"  base: {{stages: []}}\n  rmu: {{{RMU}, sweep: {{0.with.alpha: [10, 1e-5, 30.5]}}}}\n"
    )
    assert [arm.name for arm in plan.arms] == ["base", "rmu.alpha-10", "rmu.alpha-1e-05", "rmu.alpha-30.5"]
    assert [arm.stages[0].config.alpha for arm in plan.arms[1:]] == [10, 1e-5, 30.5]
    assert {arm.stages[0].config.block for arm in plan.arms[1:]} == {2}
    assert [arm.family for arm in plan.arms] == ["", "rmu", "rmu", "rmu"]


def test_large_values_are_named_as_they_are_written(write, catalog):
    text = f"  x: {{{RMU}, sweep: {{0.with.alpha: [1e6, 1.5e+06, 1e16, 1e-6, 1234567.0]}}}}\n"
    names = [arm.name for arm in arms_of(write, catalog, text).arms if arm.family]
    assert names == ["x.alpha-1e6", "x.alpha-1.5e6", "x.alpha-1e16", "x.alpha-1e-06", "x.alpha-1.23457e6"]


def test_several_keys_are_every_combination_on_top_of_like_and_set(write, catalog):
    text = f"  rmu: {{{RMU}}}\n  x: {{like: rmu, set: {{0.lr: 0.5}}, family: f, only: [everyday],\n"
    text += "      sweep: {0.with.meta: [none, relearn], 0.with.warm.rate: [0.25, 1], 0.with.blocks: [null, [1, 2]]}}\n"
    plan = arms_of(write, catalog, text)
    points = plan.arms[1:]
    assert len(points) == 8 and {arm.family for arm in points} == {"f"}
    assert points[0].name == "x.meta-none.rate-0.25.blocks-none"
    assert points[-1].name == "x.meta-relearn.rate-1.blocks-1-2"
    last = points[-1].stages[0]
    assert (last.config.meta, last.config.warm.rate, last.config.blocks) == ("relearn", 1.0, [1, 2])
    assert last.train.lr == 0.5 and points[0].only == ("everyday",)


def test_an_arm_like_a_swept_one_copies_what_is_swept_from(write, catalog):
    text = f"  rmu: {{{RMU}, sweep: {{0.lr: [0.2, 0.3]}}}}\n  one: {{like: rmu, set: {{0.steps: 3}}}}\n"
    plan = arms_of(write, catalog, text)
    assert [(arm.name, arm.stages[0].train.lr, arm.family) for arm in plan.arms] == [
        ("rmu.lr-0.2", 0.2, "rmu"),
        ("rmu.lr-0.3", 0.3, "rmu"),
        ("one", 0.1, ""),
    ]


def test_the_resolved_plan_gives_the_same_cells(write, catalog):
    plan = arms_of(write, catalog, f"  rmu: {{{RMU}, sweep: {{0.lr: [0.2, 0.3], 0.with.alpha: [1, 2]}}}}\n")
    again = load_plan(write(dump_resolved(plan), "again.yaml"), catalog)
    cells, more = (build_cells(p, identity=lambda ref: "m") for p in (plan, again))
    assert [c.to_json() | {"summary": 0} for c in cells] == [c.to_json() | {"summary": 0} for c in more]
    assert len(cells) == 4 and {c.summary["family"] for c in [*cells, *more]} == {"rmu"}


def test_gates_name_the_points(write, catalog, said):
    text = f"{HEAD}arms:\n  rmu: {{{RMU}, sweep: {{0.lr: [0.2, 0.3]}}}}\nexpect:\n"
    plan = load_plan(write(text + "  - {problem: everyday, arm: rmu.lr-0.2, metric: recall, below: 1}\n"), catalog)
    assert plan.gates[0].arm == "rmu.lr-0.2"
    assert said(text + "  - {problem: everyday, arm: rmu, metric: recall, below: 1}\n") == [
        "plan.yaml:6:30: there is no arm 'rmu' (there are: rmu.lr-0.2, rmu.lr-0.3)"
    ]


def test_long_and_like_names_stay_labels_and_differ(write, catalog):
    long = "a" * 50
    plan = arms_of(write, catalog, f"  {long}: {{{RMU}, sweep: {{0.lr: [0.21111111, 0.21111112, 0.3]}}}}\n")
    names = [arm.name for arm in plan.arms]
    assert len(set(names)) == 3 and all(len(name) <= 64 for name in names)


@pytest.mark.parametrize(
    ("arm", "line"),
    [
        ("sweep: {0.lr: []}", "'0.lr': expected a list of 1 or more, found an empty list"),
        ("sweep: {0.lr: 3}", "'0.lr': expected a list, found 3"),
        ("sweep: {}", "'sweep': expected a mapping of 1 or more, found an empty mapping"),
        ("sweep: {1.lr: [1, 2]}", "'1.lr' does not exist: '1' is no item of the list (it counts from 0 and has 1)"),
        ("sweep: {0.with.meta: [none, nine]}", "'meta': expected 'none' or 'relearn', found the text 'nine' (did you "
         "mean 'none'?)"),
        (f"sweep: {{0.lr: {list(range(1, 30))}, 0.steps: {list(range(9))}}}", "the sweep has 261 points; 200 at most"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_once(said, arm, line):
    found = said(f"{HEAD}arms:\n  x: {{{RMU}, {arm}}}\n")
    assert len(found) == 1 and found[0].endswith(line), found


def test_a_point_that_has_the_name_of_an_arm_is_told(said):
    found = said(f"{HEAD}arms:\n  x: {{{RMU}, sweep: {{0.lr: [2, 3]}}}}\n  x.lr-2: {{{RMU}}}\n")
    assert len(found) == 1 and "two arms would be called 'x.lr-2'" in found[0]


def test_roles_that_the_watchers_read_are_checked(said):
    watching = "diagnostics: {forget: everything}, stop: {retain_kl: 0.1, role: nothing}"
    found = said(f"{HEAD}arms:\n  x: {{stages: [{{use: rmu, with: {{block: 2}}, {watching}}}]}}\n")
    assert len(found) == 2
    assert "`diagnostics` needs the data role 'everything'" in found[0] and "`stop` needs" in found[1]


def test_metrics_that_detectors_score_are_those_of_the_problem(said):
    watching = "diagnostics: {metrics: [recal, recall]}"
    found = said(f"{HEAD}arms:\n  x: {{stages: [{{use: rmu, with: {{block: 2}}, {watching}}}]}}\n")
    assert len(found) == 1
    assert "the metric entry 'recal', which problem 'everyday' lacks (did you mean 'recall'?)" in found[0]
