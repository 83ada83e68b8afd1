"""`start`, `default` and `oracle` of problems, `from` and `stages: default | oracle` of arms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.plan import dump_resolved, load_plan

Said = Callable[[str], list[str]]
Write = Callable[..., Path]

PLAN = """
plan: 1
problems:
  - name: books
    data: {forget: {use: toy}, retain: {use: toy}, prompts: {use: toy}}
    start: {stages: [{use: rmu, with: {block: 1}}]}
    default: {stages: [{use: rmu, with: {block: 2}}]}
    oracle: {stages: [{use: rmu, with: {block: 3}}]}
  - everyday
"""
ARMS = """
arms:
  base: {stages: []}
  theirs: {stages: default}
  oracle: {stages: oracle, only: [books]}
  published: {from: original, stages: []}
  noise: {from: random, stages: [{use: rmu, with: {block: 0}}]}
  noisier: {like: noise, set: {0.lr: 1}}
"""


def blocks(plan: Any, problem: int) -> dict[str, tuple[str, list[int]]]:
    """What each arm of a problem begins from, and the blocks of its stages."""
    found = plan.problems[problem]
    return {
        arm.name: (arm.begin_for(found), [stage.config.block for stage in arm.stages_for(found)])
        for arm in plan.arms
        if arm.applies_to(found)
    }


def test_what_arms_begin_from_and_do(write: Write, catalog: Any) -> None:
    plan = load_plan(write(PLAN + ARMS), catalog)
    assert blocks(plan, 0) == {
        "base": ("start", []),
        "theirs": ("start", [2]),
        "oracle": ("original", [3]),
        "published": ("original", []),
        "noise": ("random", [0]),
        "noisier": ("random", [0]),
    }
    assert blocks(plan, 1) == {
        "base": ("original", []),
        "theirs": ("original", [1]),
        "published": ("original", []),
        "noise": ("random", [0]),
        "noisier": ("random", [0]),
    }
    shown = dump_resolved(plan)
    assert dump_resolved(load_plan(write(shown), catalog)) == shown


def test_without_arms_the_oracle_of_a_problem_that_ships_one_is_run(write: Write, catalog: Any) -> None:
    plan = load_plan(write(PLAN), catalog)
    assert list(blocks(plan, 0)) == ["base", "default", "oracle"]
    assert list(blocks(plan, 1)) == ["base", "default"]
    shown = dump_resolved(plan)
    again = load_plan(write(shown), catalog)
    assert dump_resolved(again) == shown and blocks(again, 0) == blocks(plan, 0)


def test_stages_that_no_arm_takes_are_not_resolved_in_shipped_problems(write: Write, catalog: Any) -> None:
    plan = load_plan(write("plan: 1\nproblems: [everyday]\narms: {base: {stages: []}}\n"), catalog)
    assert plan.problems[0].default is None
    plan = load_plan(write("plan: 1\nproblems: [everyday]\narms: {a: {stages: default}}\n"), catalog)
    assert plan.problems[0].default is not None


def test_a_plan_changes_the_stages_that_a_problem_ships(write: Write, catalog: Any) -> None:
    changes = "{default.0.steps: 3, default.0.with.block: 5, default.0.with.meta: none}"
    plan = load_plan(write(f"plan: 1\nproblems: [{{use: everyday, set: {changes}}}]\n"), catalog)
    (stage,) = plan.problems[0].default or ()
    assert (stage.train.steps, stage.config.block, stage.config.meta) == (3, 5, "none")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ("{start.0.steps: 3}", "2:34: problem 'everyday' brings no stages under 'start.0.steps' (begin with one of "
         "`default`)"),
        ("{data.forget: 3}", "2:34: problem 'everyday' brings no stages under 'data.forget' (begin with one of "
         "`default`)"),
        ("{default: 3}", "2:34: problem 'everyday' brings no stages under 'default' (begin with one of `default`)"),
        ("{default.1.steps: 3}", "2:34: 'default.1.steps' does not exist: '1' is no item of the list (it counts from 0 "
         "and has 1)"),
        ("{default.0.steps: many}", "2:51: 'steps': expected a whole number, found the text 'many'"),
        ("{default.0.with.blok: 1}", "2:34: unknown key 'blok' (did you mean 'block'?)"),
    ],
)  # fmt: skip
def test_changes_that_cannot_be_made(said: Said, changes: str, line: str) -> None:
    assert said(f"plan: 1\nproblems: [{{use: everyday, set: {changes}}}]\n") == [f"plan.yaml:{line}"]


def test_what_is_shipped_is_not_changed_by_an_arm(said: Said) -> None:
    arms = "arms:\n  a: {stages: default}\n  b: {like: a, set: {0.lr: 1}}\n  c: {stages: default, sweep: {0.lr: [1]}}\n"
    hint = "(change it with the problem's own `set`, as in {use: NAME, set: {default.0.lr: ...}})"
    assert said(f"plan: 1\nproblems: [everyday]\n{arms}") == [
        f"plan.yaml:5:22: '0.lr' is in what each problem ships as 'default' {hint}",
        f"plan.yaml:6:32: '0.lr' is in what each problem ships as 'default' {hint}",
    ]


def test_a_start_has_the_roles_that_it_reads(said: Said) -> None:
    plan = PLAN.replace("retain: {use: toy}, ", "").replace(
        "{use: rmu, with: {block: 1}}", "{use: rmu, with: {blok: 1}}"
    )
    assert said(plan + "arms: {base: {stages: []}}\n") == [
        "plan.yaml:5:33: missing key 'block' (block that is read, counted from 0)",
        "plan.yaml:5:40: unknown key 'blok' (did you mean 'block'?)",
    ]
    plan = PLAN.replace("retain: {use: toy}, ", "")
    (line,) = said(plan + "arms: {base: {stages: []}}\n")
    assert line.startswith("plan.yaml:5:28: 'rmu' needs the data role 'retain', which problem 'books' lacks")


def test_values_that_need_an_oracle_are_noted_without_one(write: Write, catalog: Any) -> None:
    plan = "plan: 1\nproblems: [everyday]\nmetrics: [{use: relative, data: forget, show: [apart, ratio]}]\narms:\n"
    notes = load_plan(write(plan + "  base: {stages: []}\n"), catalog).notes
    assert notes == ("problem 'everyday' has no arm called oracle: apart of 'relative' will not be told",)
    with_one = "  base: {stages: []}\n  oracle: {stages: [{use: rmu, with: {block: 1}}]}\n"
    assert load_plan(write(plan + with_one), catalog).notes == ()
