"""Every method can be told beforehand: it runs on the twins of a model, and takes the FLOPs that are told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unlearn_suite.engine.preflight import Family, StageEstimate, StagePlan, estimate_stage
from unlearn_suite.models.outline import on_meta
from unlearn_suite.plugins import load_target
from unlearn_suite.specs import Example, Train
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_baselines.cards import CARDS

SPECS = {card.SPEC.name: card.SPEC for card in CARDS}
WORDS = ["red", "blue", "green", "black", "white", "brown", "grey", "pink"]
EXAMPLES = {
    role: [
        Example(f"{role}{i}", f" {text} the {word} hill{' and a wall' * 3 * (i == 0)}", "the king", unit=word)
        for i, word in enumerate(WORDS)
    ]
    for role, text in (("forget", "sat on"), ("retain", "fell from"))
}
"""the longest are not in the first batches of two: the step that is traced is not the first"""


def told(name: str, **train: Any) -> StageEstimate:
    spec = SPECS[name]
    family = Family(on_meta(tiny_model().config), torch.float32)
    options = Train(**{"steps": 4, "batch": 4, "length": 32, "save_every": 2, **train})
    plan = StagePlan(lambda: load_target(spec.load)(spec.config()), options, spec.roles, EXAMPLES)
    return estimate_stage(family, tiny_tokenizer(), plan)


@pytest.mark.parametrize("name", [name for name in SPECS if name != "iti"])  # which goes through heads one by one
def test_it_is_traced(name):
    said = told(name, batch=2)
    assert said.basis == "traced", said.note


@pytest.mark.parametrize(("name", "steps"), [("mudman", 4), ("cir", 4), ("gloss", 1), ("tar", 8)])
def test_flops_are_those_of_the_stage(name, steps, run, tmp_path):
    """Of one that makes something in its first step, two that look into blocks, and one whose attacks are long."""
    cost = run(name, {}, tmp_path, given=EXAMPLES, steps=steps)[2].cost
    assert told(name, steps=steps).flops == pytest.approx(cost.flops, rel=0.1)
