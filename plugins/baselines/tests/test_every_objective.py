"""What must hold for every objective: it trains what it says, gives the same bits again, and resumes to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.plugins import load_target
from unlearn_suite.specs import Train
from unlearn_suite.testing.costs import is_cost
from unlearn_suite.testing.tiny import tiny_model
from unlearn_suite_baselines.cards import CARDS

SPECS = {card.SPEC.name: card.SPEC for card in CARDS}
STEPS = 4

OPTIONS: dict[str, dict[str, Any]] = {
    "lat-rmu": {"attack_steps": 2, "updates": 2},
    "rmu": {"rna_noise": 0.1},
    "cir": {"components": 2, "texts": 4},
    "repselect": {"inner_steps": 2, "inner_lr": 0.1, "texts": 4, "budget": 10.0},
    "mudman": {"fork_every": 3},
    "elm": {"top_k": 5, "concept": "hats"},
    "npo-sam": {"smoothness": "rs"},
    "abliteration": {"block": 2, "max_kl": None},
    "gloss": {"max_kl": None},
    "tar": {"inner_steps": 3, "inner_lr": (1e-3, 2e-3), "switch": 0.5},
}
"""what is set small for a model of four blocks"""
ARCH = {"iti": "gpt2"}
"""where an objective cannot run on llama"""


@pytest.mark.parametrize("name", SPECS)
def test_it_changes_only_what_it_declares_and_resumes_to_the_same_bits(name, run, tmp_path):
    whole, rows, result = run(name, OPTIONS.get(name, {}), tmp_path / "whole", arch=ARCH.get(name, "llama"))
    before = dict(tiny_model(ARCH.get(name, "llama")).named_parameters())
    changed = {n for n, p in whole.named_parameters() if not torch.equal(p, before[n])}
    assert changed and changed <= set(result.original)
    assert all(torch.isfinite(p).all() for p in whole.parameters())
    _, first, stopped = run(name, OPTIONS.get(name, {}), tmp_path / "cut", arch=ARCH.get(name, "llama"), stop_after=2)
    assert stopped.stopped and len(first) == 2
    resumed, second, _ = run(name, OPTIONS.get(name, {}), tmp_path / "cut", arch=ARCH.get(name, "llama"))
    assert len(second) == STEPS - 2
    assert without_times([*first, *second]) == without_times(rows)
    for (n, p), q in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q), n


def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """What an attack cost is told among a step's scalars."""
    return [{key: value for key, value in row.items() if not is_cost(key)} for row in rows]


@pytest.mark.parametrize("name", [n for n in SPECS if n not in ("abliteration", "gloss", "iti")])
def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(name, run, tmp_path):
    if name in CUT_MATTERS:
        pytest.skip(CUT_MATTERS[name])
    _, whole, _ = run(name, OPTIONS.get(name, {}), tmp_path / "whole", steps=1)
    _, cut, _ = run(name, OPTIONS.get(name, {}), tmp_path / "cut", steps=1, micro_batch=2)
    assert cut[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-4, abs=1e-5)
    assert cut[0]["grad_norm"] == pytest.approx(whole[0]["grad_norm"], rel=1e-3, abs=1e-6)


CUT_MATTERS: dict[str, str] = {
    "lat-rmu": "the adversary works on each micro-batch",
    "orth-circuit-breakers": "pairs are taken inside a micro-batch",
    "repnoise": "kernels compare the examples of a micro-batch",
    "mudman": "takes three gradients a step",
    "repselect": "takes no gradient",
    "npo-sam": "noise is the same, its gradient is summed first",
    "cir": "activations are scaled inside a micro-batch",
    "rmu": "noise is drawn for each micro-batch",
}


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
    needs = load_target(spec.load)(spec.config(**OPTIONS.get(name, {}))).requirements(shape)
    assert needs.trainable and set(needs.trainable) <= set(shape.tensors)
    assert needs.reads < shape.n_blocks
