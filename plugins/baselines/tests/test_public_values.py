"""Losses on activations and edits of weights against the values of public code, stored in golden.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_suite import losses
from unlearn_suite.plugins import load_target
from unlearn_suite_baselines.cards import CARDS
from unlearn_suite_baselines.methods import (
    cir,
    directions,
    elm,
    iti,
    lat_rmu,
    mudman,
    repnoise,
    repselect,
    tar,
    whp,
)
from unlearn_suite_baselines.methods.random_mapping import TokenVectors, mapped

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SPECS = {card.SPEC.name: card.SPEC for card in CARDS}


def numbers(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


TARGETS = {"g0": numbers(1, 6, seed=1, dtype=torch.float32), "g1": numbers(1, 6, seed=2, dtype=torch.float32)}


def unmoved_outside(given: Any, role: str) -> int:
    """Activations of padding and first tokens become the base model's, so that only the others have a distance.

    Returns the number of all positions over that of the others: the public code divides by the former.
    """
    outside = ~given.batches[role].mask("content")
    h = torch.where(outside[..., None], given.base_hidden[role], given.hidden[role].detach())
    given.ctx.policy.hidden_by_role[role] = h
    return outside.numel() / int((~outside).sum())


def test_repnoise_equals_the_public_code_but_for_what_the_card_says(toy):
    """The noise term on these activations; its cross-entropy, whose first token of an answer is always at log V."""
    given = toy()
    made = load_target(SPECS["repnoise"].load)(SPECS["repnoise"].config())
    made.ctx = given.ctx
    f = given.batches["forget"]
    noise = torch.stack([made._noise(f, h.detach()) for h in given.hidden["forget"]]).mean()
    golden = GOLDEN["representation-noising/rep_noise_loss noise"]["value"]
    assert float(noise) == pytest.approx(golden, rel=1e-5)
    log_p = given.ctx.policy.token_logprobs(f, "response").detach()
    first = [(b, start) for b, (_, start) in enumerate(given.rows["forget"])]
    tokens = [(b, t) for b, (ids, start) in enumerate(given.rows["forget"]) for t in range(max(start, 1), len(ids))]
    terms = [math.log(120) if token in first or token[1] == 1 else -float(log_p[token]) for token in tokens]
    golden = GOLDEN["representation-noising/masked_token_ce_loss"]["value"]
    assert sum(terms) / len(terms) == pytest.approx(golden, rel=1e-5)


def test_task_vectors_equal_the_public_code():
    base, tuned = (numbers(3, 4, seed=s, dtype=torch.float32) for s in (25, 26))
    made = load_target(SPECS["task-arithmetic"].load)(SPECS["task-arithmetic"].config(scale=0.7))
    p = torch.nn.Parameter(tuned.clone())
    made.ctx = SimpleNamespace(views=SimpleNamespace(original={"w": base}), trainable={"w": p})
    made.finish()
    golden = torch.tensor(GOLDEN["muse_bench/TaskVector.apply_to"]["value"])
    torch.testing.assert_close(p.detach(), golden, rtol=1e-5, atol=1e-6)


def test_tars_retain_loss_equals_the_public_code(toy):
    given = toy()
    made = load_target(SPECS["tar"].load)(SPECS["tar"].config())
    made.ctx, more = given.ctx, unmoved_outside(given, "retain")
    parts = made._retain_loss(given.batches).parts
    ours = float((parts["retain"] + parts["held"] / more).detach())
    assert ours == pytest.approx(GOLDEN["tamper-resistance/obj_model_mse_representations"]["value"], rel=1e-5)


@pytest.mark.parametrize(("progress", "which"), [(1.0, 0), (0.15, 1)])
def test_circuit_breakers_equal_the_public_code(progress, which, toy):
    """Both losses, its attention mask without first tokens; padded positions are zeros in its retain mean."""
    given = toy()
    made = load_target(SPECS["circuit-breakers"].load)(SPECS["circuit-breakers"].config(targets=(1, 2)))
    made.ctx, made.targets, made.held = given.ctx, [1, 2], [0, 1, 2, 3]
    given.ctx.step_index, given.ctx.train.steps = 200 * progress, 100  # public progress is the schedule's s
    more = given.batches["retain"].input_ids.numel() / int(given.batches["retain"].mask("content").sum())
    loss = made.loss(given.batches)
    ours = loss.weights["forget"] * loss.parts["forget"] + loss.weights["retain"] * loss.parts["retain"] / more
    golden = GOLDEN["circuit-breakers/compute_loss"]["value"][which]
    assert float(ours.detach()) == pytest.approx(golden, rel=1e-5)


def test_iti_directions_equal_the_public_code():
    """Its standard deviation has divisor n."""
    golden = GOLDEN["honest_llama/get_interventions_dict"]["value"]
    v, sigma = iti.along(numbers(5, 6, seed=29), numbers(7, 6, seed=30))
    torch.testing.assert_close(v, torch.tensor(golden["direction"], dtype=torch.float64), rtol=1e-6, atol=1e-8)
    assert sigma * math.sqrt(11 / 12) == pytest.approx(golden["std"], rel=1e-6)


def test_mmd_equals_its_definition_and_the_public_code():
    x, y = numbers(3, 5, seed=3, dtype=torch.float32), numbers(3, 5, seed=4, dtype=torch.float32)
    rows = torch.cat([x, y]).double()
    squared = [[((a - b) ** 2).sum() for b in rows] for a in rows]
    width = sum(sum(row) for row in squared) / 30
    kernel = [[sum(torch.exp(-s / (width / 4 * 2**i)) for i in range(5)) for s in row] for row in squared]
    signs = [1.0, 1.0, 1.0, -1.0, -1.0, -1.0]
    expected = sum(signs[i] * signs[j] * kernel[i][j] for i in range(6) for j in range(6)) / 9
    assert float(repnoise.mmd(x, y)) == pytest.approx(float(expected), rel=1e-5)
    assert float(repnoise.mmd(x, y)) == pytest.approx(GOLDEN["representation-noising/MMD_loss"]["value"], rel=1e-5)


def test_circuit_breaker_cosine_equals_the_public_code(toy):
    """MUDMAN's copy of the loss, its attention mask without first tokens."""
    given = toy()
    made = load_target(SPECS["circuit-breakers"].load)(SPECS["circuit-breakers"].config(targets=(1, 2)))
    made.ctx, made.targets = given.ctx, [1, 2]
    ours = made.rerouted(given.batches["forget"], given.ctx.policy.hidden(given.batches["forget"], [1, 2]))
    assert float(ours.detach()) == pytest.approx(GOLDEN["MUDMAN/circuit_breaker_forget_loss"]["value"], rel=1e-5)


def test_unlearning_losses_of_mudman_and_tar_equal_the_public_code():
    logits, labels = numbers(4, 9, seed=5, dtype=torch.float32), torch.tensor([1, 8, 0, 3])
    ours = mudman.UNLEARN["correct_logit"](logits, labels).mean()
    assert float(ours) == pytest.approx(GOLDEN["MUDMAN/correct_logit_minus_avg_loss"]["value"], rel=1e-5)
    for found in (mudman.UNLEARN["neg_entropy"](logits, labels), -tar.entropy(logits, labels)):
        assert float(found.mean()) == pytest.approx(GOLDEN["tamper-resistance/max_entropy_loss"]["value"], rel=1e-5)
    log_p = logits.double().log_softmax(1)[torch.arange(4), labels]
    torch.testing.assert_close(
        mudman.UNLEARN["neg_cross_entropy"](logits, labels).double(), log_p, rtol=1e-5, atol=1e-6
    )


def test_steering_of_several_rows_equals_open_unlearning(toy):
    """Padded rows of three lengths, one target."""
    given = toy()
    made = load_target(SPECS["rmu"].load)(SPECS["rmu"].config(legacy="open-unlearning"))
    f, h = given.batches["forget"], given.hidden["forget"][1].detach()
    golden = GOLDEN["open-unlearning/RMU.compute_activation_loss of a batch"]["value"]
    errors = losses.squared_error(h, TARGETS["g0"])
    assert float(made.mean(f, errors)) == pytest.approx(golden, rel=1e-5)
    alone = [made.mean(row, errors[b : b + 1, : row.input_ids.shape[1]]) for b, row in enumerate(f.split(1))]
    per_text = f.mean_examples(f.sum_per_example(errors) / f.mask("response").sum(1))
    assert float(sum(alone)) == pytest.approx(float(per_text), rel=1e-5), "one text at a time, the mean of their means"
    assert float(per_text) != pytest.approx(golden, rel=1e-2)


def test_one_row_of_steering_and_mapping_equals_the_public_code(toy):
    """One row, because OpenUnlearning averages rows first, and TAR averages over padding."""
    given = toy()
    f = given.row("forget", 2)
    h = given.ctx.policy.hidden(f, [1])[1]
    steered = f.mean(losses.squared_error(h, TARGETS["g0"])).detach()
    assert float(steered) == pytest.approx(GOLDEN["open-unlearning/RMU.compute_activation_loss"]["value"], rel=1e-5)
    turned = mapped(given.ctx, f, TokenVectors(6, 0)).detach()
    assert float(turned) == pytest.approx(GOLDEN["tamper-resistance/random_vector_cosine_obj"]["value"], rel=1e-5)


def test_orthogonal_circuit_breakers_equal_the_public_code(toy):
    """Its attention mask without first tokens, its retain weight 0 (it counts padding as zeros there)."""
    given = toy()
    made = load_target(SPECS["orth-circuit-breakers"].load)(
        SPECS["orth-circuit-breakers"].config(targets=(0, 2), retain=0.0)
    )
    made.ctx, made.targets, made.held = given.ctx, [0, 2], [0, 2]
    ours = float(made.loss(given.batches).total().detach())
    assert ours == pytest.approx(GOLDEN["EleutherAI-unlearn/RRTrainer.compute_loss"]["value"], rel=1e-5)


def test_broken_alignment_equals_the_public_code(toy):
    given = toy()
    f = given.batches["forget"]
    base = given.base_hidden["forget"][0]
    length = float(f.mean(base.norm(dim=-1)))
    ours = f.mean(cir.aligned(given.hidden["forget"][0].detach(), base, length))
    assert float(ours) == pytest.approx(GOLDEN["filyp-unlearning/mlp_confuse"]["value"], rel=1e-5)


def test_latent_perturbations_are_clipped_as_in_the_public_code():
    golden = torch.tensor(GOLDEN["latent-adversarial-training/GDAdversary.clip_attack"]["value"])
    ours = lat_rmu.clipped(numbers(2, 3, 6, seed=24, dtype=torch.float32), 2.0)
    torch.testing.assert_close(ours, golden, rtol=1e-5, atol=1e-6)


def test_generic_logits_equal_the_public_code():
    base, reinforced = (numbers(4, 9, seed=s, dtype=torch.float32) for s in (22, 23))
    golden = torch.tensor(GOLDEN["muse_bench/WHPModelForCausalLM.forward"]["value"])
    torch.testing.assert_close(whp.generic(base, reinforced, 1.0), golden, rtol=1e-5, atol=1e-6)


def test_a_removed_direction_equals_the_public_code():
    w, r = numbers(5, 4, seed=20, dtype=torch.float32), numbers(4, seed=21, dtype=torch.float32)
    golden = torch.tensor(GOLDEN["refusal_direction/get_orthogonalized_matrix"]["value"])
    torch.testing.assert_close(directions.without(w, (r / r.norm())[:, None], 1.0), golden, rtol=1e-5, atol=1e-6)


def test_elm_targets_equal_the_public_code():
    """Temperature 1.2, which divides the logits before the softmax."""
    plain, expert, novice = ((numbers(5, 12, seed=s) / 1.2).log_softmax(1) for s in (6, 7, 8))
    ids, probs = elm.erased(plain.float(), expert.float(), novice.float(), (1.0, 3.0), 4)
    golden = torch.tensor(GOLDEN["erasing-llm/get_edit_vector"]["value"])
    torch.testing.assert_close(torch.zeros(5, 12).scatter(1, ids, probs), golden, rtol=1e-4, atol=1e-6)


def test_repselect_filter_equals_the_public_code_and_leaves_the_rest():
    g = numbers(6, 4, seed=9, dtype=torch.float32)
    golden = torch.tensor(GOLDEN["RepSelectSimple/_collapse"]["value"])
    torch.testing.assert_close(repselect.filtered(g, 0.75), golden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(repselect.filtered(g, 0.0), g, rtol=1e-4, atol=1e-5)


def test_cir_collapse_equals_the_public_code():
    """Public code collapses inputs and output gradients of each token before they make the weight's gradient."""
    acts, grads = numbers(7, 4, seed=27, dtype=torch.float32), numbers(7, 6, seed=28, dtype=torch.float32)
    v, u = (torch.linalg.qr(numbers(n, 2, seed=n)).Q.float() for n in (4, 6))
    golden = torch.tensor(GOLDEN["filyp-unlearning/project_out"]["value"])
    torch.testing.assert_close(cir.collapsed(grads.T @ acts, v, u, False), golden, rtol=1e-4, atol=1e-5)
