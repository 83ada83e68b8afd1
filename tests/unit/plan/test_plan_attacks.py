"""What can be wrong with the points of an attack, told before anything runs."""

from __future__ import annotations

import pytest

from unlearn_suite import AttackConfig, AttackPoint, AttackSpec
from unlearn_suite.errors import PlanErrors
from unlearn_suite.plan import load_plan

PLAN = "plan: 1\nproblems: [everyday]\nattacks:\n  - {use: %s, scores: [recall]}\n"


class Twice(AttackConfig):
    def points(self) -> tuple[AttackPoint, ...]:
        return AttackPoint("hard", 2), AttackPoint("hard", 4), AttackPoint("hard,4")


class Broken(AttackConfig):
    def points(self) -> tuple[AttackPoint, ...]:
        raise RuntimeError


def test_two_points_of_one_name_are_told(write, make_catalog):
    catalog = make_catalog("1.0", AttackSpec("twice", "twice", "fake:Twice", Twice))
    with pytest.raises(PlanErrors) as caught:
        load_plan(write(PLAN % "twice"), catalog)
    assert [str(error) for error in caught.value.errors] == [
        "plan.yaml:4:5: attack 'twice' is scored at two points called 'hard,4' (give its options values that differ)"
    ]


def test_points_that_raise_are_left_to_the_making_of_cells(write, make_catalog):
    catalog = make_catalog("1.0", AttackSpec("broken", "broken", "fake:Broken", Broken))
    assert load_plan(write(PLAN % "broken"), catalog).attacks[0].name == "broken"
