"""What must hold for every objective beside the promises of the conformance kit."""

from __future__ import annotations

import pytest

from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.plugins import load_target
from unlearn_suite.specs import Train
from unlearn_suite.testing.tiny import tiny_model
from unlearn_suite_baselines.cards import CARDS

SPECS = {card.SPEC.name: card.SPEC for card in CARDS}
ARCH = {"iti": "gpt2"}
"""where an objective cannot run on llama"""


@pytest.mark.parametrize("name", SPECS)
def test_the_card_says_what_must_be_said(name):
    spec = SPECS[name]
    card = next(card for card in CARDS if card.SPEC is spec)
    assert spec.fidelity in ("faithful", "variant", "simplified") and spec.paper
    assert "\n    " in (card.__doc__ or ""), "a card gives its equation"
    assert all(field.description for field in spec.config.model_fields.values())
    Train.model_validate(dict(spec.train))


@pytest.mark.parametrize("name", SPECS)
def test_it_needs_only_tensors_and_blocks_that_exist(name):
    shape = ModelShape.of(tiny_model(ARCH.get(name, "llama")))
    spec = SPECS[name]
    needs = load_target(spec.load)(spec.config()).requirements(shape)
    assert needs.trainable and set(needs.trainable) <= set(shape.tensors)
    assert needs.reads < shape.n_blocks
