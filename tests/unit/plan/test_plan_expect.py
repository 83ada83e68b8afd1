"""`expect` of problems: what is read, dropped, replaced and asked for by the plan's own `expect`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unlearn_suite.plan import Gate, dump_resolved, load_plan
from unlearn_suite.plan.limits import outside
from unlearn_suite.plan.model import Limit

Said = Callable[[str], list[str]]
Write = Callable[..., Path]

PLAN = """
plan: 1
problems:
  - name: books
    data: {forget: {use: toy}, retain: {use: toy}}
    metrics:
      - {name: recall, use: cloze, data: forget, want: lower, show: [nll, exact]}
      - {name: keep, use: cloze, data: retain}
    expect:
      - {metric: recall, value: exact, of: over_oracle, below: 0.05}
      - {metric: keep, of: relative_change, above: -0.05}
arms: {base: {stages: []}, rmu: {stages: [{use: rmu, with: {block: 1}}]}}
"""
LIMITS = (
    Limit("recall", "exact", "over_oracle", 0.05, None),
    Limit("keep", "exact", "relative_change", None, -0.05),
)


def test_a_problem_says_what_it_expects_and_a_plan_can_ask_for_all_of_it(write: Write, catalog: Any) -> None:
    plan = load_plan(write(PLAN), catalog)
    assert plan.problems[0].expect == LIMITS and plan.gates == ()
    asked = PLAN + "expect: [{problem: books, arm: rmu}, {problem: books, arm: rmu, metric: recall, above: 1}]\n"
    plan = load_plan(write(asked), catalog)
    assert plan.gates == (
        *(Gate("books", "rmu", **vars(limit), at=plan.gates[0].at) for limit in LIMITS),
        Gate("books", "rmu", "recall", "nll", "after", None, 1.0, plan.gates[2].at),
    )
    again = load_plan(write(dump_resolved(plan), "again.yaml"), catalog)
    assert (again.problems[0].expect, again.gates) == (plan.problems[0].expect, plan.gates)


def test_what_is_expected_of_a_dropped_entry_is_dropped_and_a_plan_puts_its_own(write: Write, catalog: Any) -> None:
    fragment = Path("../site/fake_plan_plugin/problems/everyday.yaml")
    lines = ["expect:", "  - {metric: recall, value: exact, below: 0.1}", "  - {metric: sampled, above: 0}"]
    fragment.write_text("\n".join([fragment.read_text(), *lines, ""]))
    changes = {
        "": ["recall", "sampled"],
        ", metrics: {sampled: null}": ["recall"],
        ", expect: [{metric: sampled, below: 1}]": ["sampled"],
        ", expect: []": [],
    }
    for change, expected in changes.items():
        plan = load_plan(write(f"plan: 1\nproblems: [{{use: everyday{change}}}]\n"), catalog)
        assert [limit.metric for limit in plan.problems[0].expect] == expected


def test_faults_of_expectations_are_told_at_their_place(said: Said) -> None:
    wrong = PLAN.replace("metric: recall, value: exact,", "metric: recal, value: exact,")
    wrong = wrong.replace("metric: keep, of", "metric: keep, value: exat, of").replace("above: -0.05", "above: x")
    told = said(wrong)
    assert len(told) == 2 and "plan.yaml:9:18: problem 'books' has no metric entry 'recal'" in told[0]
    assert "'recall'?" in told[0] and "'above': expected a number" in told[1]
    assert "there is no value of 'cloze' 'exat'" in said(PLAN.replace("keep, of", "keep, value: exat, of"))[0]
    assert "needs `below` or `above`" in said(PLAN.replace(", above: -0.05", ""))[0]
    assert "needs `metric`" in said(PLAN + "expect: [{problem: books, arm: rmu, below: 1}]\n")[0]
    assert (
        "problem 'everyday' expects nothing"
        in said(
            "plan: 1\nproblems: [everyday]\narms: {rmu: {stages: default}}\nexpect: [{problem: everyday, arm: rmu}]\n"
        )[0]
    )


def test_limits_do_not_hold_at_their_ends() -> None:
    assert outside(0.3, 0.3, None) == ["below 0.3"] and outside(0.3, None, 0.3) == ["above 0.3"]
    assert outside(0.2, 0.3, 0.1) == []
