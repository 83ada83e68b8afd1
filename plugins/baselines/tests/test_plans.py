"""The plans of the leaderboard: every method that can run has as many candidates as any other, and is reported."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from unlearn_suite.plan import load_plan
from unlearn_suite.plugins import load_catalog
from unlearn_suite_baselines.cards import CARDS

FOLDER = Path(__file__).parents[1] / "plans"
LEFT_OUT = {"knowledge": {"iti", "dpo"}, "toxicity": {"iti"}}
"""the model has no biases; facts have no alternate answers"""
BESIDE = {"cosine-rmu", "probe-directions", "sft"}
"""the two reference objectives, and the control"""


@pytest.mark.parametrize("function", LEFT_OUT)
def test_every_method_has_three_candidates_and_a_reported_arm(function):
    catalog = load_catalog()
    tuning, reported = (load_plan(FOLDER / f"{function}-{kind}.yaml", catalog) for kind in ("tuning", "in-small"))
    candidates = Counter(arm.family for arm in tuning.arms if arm.stages)
    assert set(candidates.values()) == {3}
    assert {arm.name for arm in reported.arms if arm.stages} == set(candidates)
    used = {stage.entry.spec.name for arm in reported.arms for stage in arm.stages}
    assert used - BESIDE == {c.SPEC.name for c in CARDS} - LEFT_OUT[function]
    assert reported.seeds == (0, 1, 2) and not {p.label for p in tuning.problems} & {p.label for p in reported.problems}
