"""Losses on activations and edits of weights, against formulas in float64 and against public code's values."""

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
    circuit_breakers,
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
from unlearn_suite_baselines.methods.npo_sam import NpoSam
from unlearn_suite_baselines.methods.random_mapping import TokenVectors, mapped

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SPECS = {card.SPEC.name: card.SPEC for card in CARDS}
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-7}, torch.bfloat16: {"rtol": 1e-2, "atol": 1e-4}}


def numbers(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def content(rows: list[tuple[list[int], int]]) -> list[tuple[int, int]]:
    """(row, position) of every real token but the first."""
    return [(b, t) for b, (ids, _) in enumerate(rows) for t in range(1, len(ids))]


def cos(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum() / (x * x).sum().sqrt() / (y * y).sum().sqrt()


class Formulas:
    """h: policy activations [blocks, B, T, D], g: the base model's, float64, by role."""

    def __init__(self, toy: Any) -> None:
        self.h = {r: x.detach().double().requires_grad_() for r, x in toy.hidden.items()}
        self.g = {r: x.double() for r, x in toy.base_hidden.items()}
        self.z = {r: x.detach().double().requires_grad_() for r, x in toy.logits.items()}
        self.rows = toy.rows

    def mean(self, role: str, blocks: list[int], of: Any) -> Tensor:
        tokens = content(self.rows[role])
        return torch.stack(
            [of(self.h[role][k, b, t], self.g[role][k, b, t], b, t) for k in blocks for b, t in tokens]
        ).mean()

    def steered(self, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """{role: [B, T]}: squared errors over the width, at every position."""
        wanted = torch.stack([targets[f"g{b % 2}"][0].double() for b in range(len(self.rows["forget"]))])
        goal = {"forget": wanted[:, None], "retain": self.g["retain"][1]}
        return {role: ((self.h[role][1] - goal[role]) ** 2).mean(-1) for role in goal}

    def rmu(self, targets: dict[str, Tensor], alpha: float, noise: Tensor | float = 0.0) -> Tensor:
        forget = self.mean("forget", [1], lambda h, g, b, t: ((h - targets[f"g{b % 2}"].double()) ** 2).sum() / len(h))
        self.g["retain"][1] += noise
        return forget + alpha * self.mean("retain", [1], lambda h, g, b, t: ((h - g) ** 2).sum() / len(h))

    def rmu_everywhere(self, targets: dict[str, Tensor], alpha: float) -> Tensor:
        """The public code's mean: padding and the first token too."""
        errors = self.steered(targets)
        return errors["forget"].mean() + alpha * errors["retain"].mean()

    def rmu_open_unlearning(self, targets: dict[str, Tensor], alpha: float) -> Tensor:
        """[B] sums over labels by [B, 1] counts are [B, B]."""
        total = torch.zeros((), dtype=torch.float64)
        for role, errors in self.steered(targets).items():
            inside = [range(max(start, 1), len(ids)) for ids, start in self.rows[role]]
            sums = [torch.stack([errors[b, t] for t in tokens]).sum() for b, tokens in enumerate(inside)]
            square = torch.stack([torch.stack([s / len(tokens) for s in sums]) for tokens in inside])
            total = total + (alpha if role == "retain" else 1.0) * square.mean()
        return total

    def rerouting(self, blocks: list[int]) -> Tensor:
        return self.mean("forget", blocks, lambda h, g, b, t: torch.relu(cos(h, g)))

    def held(self, blocks: list[int]) -> Tensor:
        return self.mean("retain", blocks, lambda h, g, b, t: ((h - g) ** 2).sum().sqrt())

    def orth(self, blocks: list[int]) -> Tensor:
        total, rows = 0.0, self.rows["forget"]
        for k in blocks:
            pools = [self.h["forget"][k, b, 1 : len(ids)].mean(0) for b, (ids, _) in enumerate(rows)]
            pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
            total = total + sum(torch.relu(cos(pools[i], pools[j])) for i, j in pairs) / len(pairs)
        return total / len(blocks) * sum(len(ids) - 1 for ids, _ in rows) / len(rows)

    def mapped(self, vectors: TokenVectors) -> Tensor:
        def one(h: Tensor, g: Tensor, b: int, t: int) -> Tensor:
            return 1 - cos(h, vectors(torch.tensor(self.rows["forget"][b][0][t])).double()).abs()

        return self.mean("forget", [0, 1, 2, 3], one)

    def nll(self, role: str) -> Tensor:
        terms = []
        for b, (ids, start) in enumerate(self.rows[role]):
            for t in range(max(start, 1), len(ids)):
                z = self.z[role][b, t - 1]
                terms.append(torch.log(torch.exp(z).sum()) - z[ids[t]])
        return torch.stack(terms).mean()


TARGETS = {"g0": numbers(1, 6, seed=1, dtype=torch.float32), "g1": numbers(1, 6, seed=2, dtype=torch.float32)}
S = 3 / 10  # step_index / steps of the given context

RNA = numbers(3, 6, 6, seed=31)
"""noise [B, T, D] of the retain rows"""

CASES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "rmu": ("rmu", {}, lambda f: f.rmu(TARGETS, 1200.0)),
    "rmu-rna": ("rmu", {"rna_noise": 0.3, "alpha": 2.0}, lambda f: f.rmu(TARGETS, 2.0, 0.3 * RNA)),
    "rmu-legacy": ("rmu", {"legacy": True, "alpha": 3.0}, lambda f: f.rmu_everywhere(TARGETS, 3.0)),
    "rmu-open-unlearning": (
        "rmu",
        {"legacy": "open-unlearning", "alpha": 3.0},
        lambda f: f.rmu_open_unlearning(TARGETS, 3.0),
    ),
    "adaptive-rmu": ("adaptive-rmu", {"alpha": 7.0}, lambda f: f.rmu(TARGETS, 7.0)),
    "adaptive-rmu-legacy": (
        "adaptive-rmu",
        {"alpha": 7.0, "legacy": True},
        lambda f: f.rmu_everywhere(TARGETS, 7.0),
    ),
    "tar": ("tar", {}, lambda f: f.nll("retain") + f.held([0, 1, 2, 3])),
    "circuit-breakers": (
        "circuit-breakers",
        {"targets": (1, 2), "retain_weight": 0.5},
        lambda f: 0.5 * 10 * (S / 2) * f.held([0, 1, 2, 3]) + 10 * (1 - S / 2) * f.rerouting([1, 2]),
    ),
    "orth-circuit-breakers": (
        "orth-circuit-breakers",
        {"targets": (0, 2)},
        lambda f: 2 * S * f.held([0, 2]) + 23 * (1 - S / 4) * f.rerouting([0, 2]) + 10 * S * f.orth([0, 2]),
    ),
    "random-mapping": ("random-mapping", {}, lambda f: f.mapped(TokenVectors(6, 0)) + f.nll("retain")),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_equal_the_equation(case, dtype, toy):
    name, options, formula = CASES[case]
    given = toy(dtype)
    made = load_target(SPECS[name].load)(SPECS[name].config(**options))
    made.ctx, made.block, made.vectors = given.ctx, 1, TokenVectors(6, 0)
    if name in ("rmu", "adaptive-rmu"):
        made.targets = {topic: u[0] for topic, u in TARGETS.items()}
        made._noise = lambda batch, like: RNA.float()
    elif "circuit" in name:
        made.targets, made.held = made.target_blocks(_shape()), made.held_blocks(_shape())
    total = (made._retain_loss if name == "tar" else made.loss)(given.batches).total()
    total.backward()
    plain = Formulas(given)
    expected = formula(plain)
    expected.backward()
    torch.testing.assert_close(total.double(), expected, rtol=2e-5, atol=1e-6)
    for found, wanted in ((given.hidden, plain.h), (given.logits, plain.z)):
        for role, x in wanted.items():
            ours = found[role].grad
            assert (ours is None) == (x.grad is None), role
            if ours is not None:
                torch.testing.assert_close(ours.double(), x.grad, **TOLERANCE[dtype])


def _shape() -> Any:
    return SimpleNamespace(n_blocks=4, check_block=lambda block: block)


def test_rna_noise_is_a_standard_normal_of_each_example_and_step(toy):
    given = toy()
    made = load_target(SPECS["rmu"].load)(SPECS["rmu"].config(rna_noise=1.0))
    made.ctx = given.ctx
    made.draw_noise()
    r = given.batches["retain"]
    first = made._noise(r, given.base_hidden["retain"][1])
    assert not first[~r.attention_mask.bool()].any() and first[r.attention_mask.bool()].ne(0).all()
    alone = made._noise(r.split(1)[1], given.base_hidden["retain"][1][1:2])
    assert torch.equal(alone, first[1:2, : alone.shape[1]]), "whatever piece of a batch it is in"
    wide = made._noise(r, torch.zeros(3, 6, 4096))[r.attention_mask.bool()]
    assert abs(float(wide.mean())) < 0.02 and float(wide.std()) == pytest.approx(1.0, abs=0.02)
    made.draw_noise()
    assert not torch.equal(made._noise(r, first), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_repnoise_noise_is_masked_and_its_gradient_too(dtype, toy):
    """Over the responses of padded rows; the kernels' width is a constant."""
    given = toy(dtype)
    made = load_target(SPECS["repnoise"].load)(SPECS["repnoise"].config())
    made.ctx = given.ctx
    f, h = given.batches["forget"], given.hidden["forget"]
    ours = made._noise(f, h[1])
    ours.backward()
    noise = torch.randn(h[1].shape, generator=torch.Generator().manual_seed(0)).double()
    x = h.detach()[1].double().requires_grad_()
    rows = []
    for source in (x, noise):
        for b, (ids, start) in enumerate(given.rows["forget"]):
            inside = torch.tensor([max(start, 1) <= t < len(ids) for t in range(source.shape[1])])
            rows.append((source[b] * inside[:, None]).flatten())
    squared = torch.stack([torch.stack([((a - b) ** 2).sum() for b in rows]) for a in rows])
    width = squared.detach().sum() / 30
    kernel = sum(torch.exp(-squared / (width / 4 * 2**i)) for i in range(5))
    signs = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    expected = (signs[:, None] * signs[None] * kernel).sum() / 9
    expected.backward()
    assert float(ours.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(h.grad[1].double(), x.grad, **TOLERANCE[dtype])


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


def unmoved_outside(given: Any, role: str) -> int:
    """Activations of padding and first tokens become the base model's, so that only the others have a distance.

    Returns the number of all positions over that of the others: the public code divides by the former.
    """
    outside = ~given.batches[role].mask("content")
    h = torch.where(outside[..., None], given.base_hidden[role], given.hidden[role].detach())
    given.ctx.policy.hidden_by_role[role] = h
    return outside.numel() / int((~outside).sum())


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


def test_elm_targets_equal_the_equation():
    plain, expert, novice = (numbers(5, 12, seed=s).log_softmax(1) for s in (6, 7, 8))
    ids, probs = elm.erased(plain.float(), expert.float(), novice.float(), (1.0, 3.0), 4)
    for t in range(5):
        eta = 1.0 + 2.0 * t / 4
        score = plain[t] - eta * (expert[t] - novice[t])
        best = sorted(range(12), key=lambda v: -float(score[v]))[:4]
        assert ids[t].tolist() == best
        weights = torch.exp(score[best]) / torch.exp(score[best]).sum()
        torch.testing.assert_close(probs[t].double(), weights, rtol=1e-4, atol=1e-6)


def test_tar_weights_and_token_vectors():
    weights = tar.readouts(SPECS["tar"].config(inner_steps=10, readout_every=4))
    assert list(weights) == [4, 8, 10]
    assert weights[10] == 4.0 and weights[4] == pytest.approx(4 * math.exp(-0.0625 * 6))
    ids = torch.tensor([[3, 7, 3]])
    rows = TokenVectors(5, seed=2)(ids)
    assert torch.equal(rows[0, 0], rows[0, 2]) and not torch.equal(rows[0, 0], rows[0, 1])
    assert torch.equal(rows, TokenVectors(5, seed=2)(ids))


def test_repselect_filter_equals_the_public_code_and_leaves_the_rest():
    g = numbers(6, 4, seed=9, dtype=torch.float32)
    golden = torch.tensor(GOLDEN["RepSelectSimple/_collapse"]["value"])
    torch.testing.assert_close(repselect.filtered(g, 0.75), golden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(repselect.filtered(g, 0.0), g, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_cir_removes_components_on_both_sides(transposed):
    g = numbers(6, 4, seed=10, dtype=torch.float32)
    v, u = (torch.linalg.qr(numbers(n, 2, seed=n)).Q.float() for n in (4, 6))
    ours = cir.collapsed(g.T if transposed else g, v, u, transposed)
    ours = ours.T if transposed else ours
    eye = torch.eye
    expected = (eye(6) - u @ u.T).double() @ g.double() @ (eye(4) - v @ v.T).double()
    torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-6)
    x = [numbers(3, 4, seed=11, dtype=torch.float32), numbers(7, 4, seed=12, dtype=torch.float32)]
    largest = torch.linalg.eigh(torch.cat(x).T @ torch.cat(x)).eigenvectors[:, -1]
    assert abs(float(cir.top(x, 1)[:, 0] @ largest)) == pytest.approx(1.0, abs=1e-4)


def test_cir_collapse_equals_the_public_code():
    """Public code collapses inputs and output gradients of each token before they make the weight's gradient."""
    acts, grads = numbers(7, 4, seed=27, dtype=torch.float32), numbers(7, 6, seed=28, dtype=torch.float32)
    v, u = (torch.linalg.qr(numbers(n, 2, seed=n)).Q.float() for n in (4, 6))
    golden = torch.tensor(GOLDEN["filyp-unlearning/project_out"]["value"])
    torch.testing.assert_close(cir.collapsed(grads.T @ acts, v, u, False), golden, rtol=1e-4, atol=1e-5)


def test_cir_alignment_equals_the_equation(toy):
    given = toy()
    f, o, base = given.batches["forget"], given.hidden["forget"][0].detach(), given.base_hidden["forget"][0]
    tokens = content(given.rows["forget"])
    size = torch.stack([(base[b, t].double() ** 2).sum().sqrt() for b, t in tokens]).mean()
    expected = torch.stack(
        [torch.relu((o[b, t].double() * base[b, t].double()).sum()) / size**2 for b, t in tokens]
    ).mean()
    assert float(f.mean(cir.aligned(o, base, float(size)))) == pytest.approx(float(expected), rel=1e-5)


A = numbers(5, 5, seed=13)
HESSIAN = A @ A.T


class Quadratic(NpoSam):
    """L = w' H w / 2 in place of the NPO loss: its gradient and Hessian are known."""

    def __init__(self, **options: Any) -> None:
        super().__init__(SPECS["npo-sam"].config(**options))
        self.w = torch.nn.Parameter(numbers(5, seed=14))
        self.ctx = SimpleNamespace(  # type: ignore[assignment]
            trainable={"w": self.w},
            global_norm=lambda tensors: torch.stack([t.norm() for t in tensors]).norm(),
            generator=torch.Generator().manual_seed(0),
        )

    def _gradient(self, forget: Any) -> Any:
        return {}, {"w": HESSIAN @ self.w.detach()}

    def found(self) -> Tensor:
        start = self.w.detach().clone()
        result: Tensor = getattr(self, f"_{self.config.smoothness}")({}, self._gradient({})[1])["w"]
        assert torch.equal(self.w, start), "the weights are put back bit for bit"
        return result


def test_smoothness_gradients_on_a_quadratic():
    w = numbers(5, seed=14)
    g = HESSIAN @ w
    unit = g / g.norm()
    torch.testing.assert_close(Quadratic(smoothness="sam", rho=0.1).found(), HESSIAN @ (w + 0.1 * unit))
    expected = g + 3.0 * HESSIAN @ unit
    torch.testing.assert_close(Quadratic(smoothness="gp", rho=3.0).found(), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(Quadratic(smoothness="gp", rho=3.0, legacy=True).found(), g)
    generator = torch.Generator().manual_seed(0)
    z = torch.stack([torch.randn(5, generator=generator).double() for _ in range(3)]).mean(0)
    torch.testing.assert_close(Quadratic(smoothness="rs", rho=0.1).found(), HESSIAN @ (w + 0.1 * z))


class Quartic(Quadratic):
    """L = sum w^4 / 4: its Hessian, 3 w^2 on the diagonal, changes along the way."""

    def _gradient(self, forget: Any) -> Any:
        return {}, {"w": self.w.detach() ** 3}


def test_curvature_penalty_on_a_quartic():
    w = numbers(5, seed=14)
    g = w**3
    near = w + 1e-3 * g / g.norm()
    d = near**3 - g
    torch.testing.assert_close(
        Quartic(smoothness="cr", rho=4.0, difference=1e-3).found(),
        g + 2 * 4.0 * (3 * near**2 - 3 * w**2) * d,
        rtol=1e-6,
        atol=1e-8,
    )
    torch.testing.assert_close(Quartic(smoothness="cr", rho=4.0, legacy=True).found(), g)


class Combined(Quadratic):
    """With a retain loss sum w^4 / 4; what the optimizer is given is kept."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.w = torch.nn.Parameter(numbers(5, seed=14, dtype=torch.float32))
        self.ctx.trainable = {"w": self.w}  # type: ignore[misc]
        self.ctx.backward = self._retained  # type: ignore[method-assign]
        self.ctx.update = lambda: {"grad_norm": 0.0}  # type: ignore[method-assign]
        self.ctx.step_index, self.ctx.train = 0, SimpleNamespace(steps=1)  # type: ignore[assignment]

    def _gradient(self, forget: Any) -> Any:
        return {"loss": 0.0, "forget": 0.0}, {"w": HESSIAN.float() @ self.w.detach()}

    def _retained(self, loss: Any, batch: Any) -> dict[str, float]:
        self.w.grad = self.config.alpha * self.w.detach() ** 3
        return {"loss": 0.0, "retain": 0.0}


@pytest.mark.parametrize(("smoothness", "trainer"), [("sam", "SAMTrainer"), ("rs", "RSTrainer")])
def test_steps_equal_those_of_unlearn_smooth(smoothness, trainer):
    """A step's gradient of its trainers; rs draws from the same seed."""
    made = Combined(smoothness=smoothness, rho=0.1, alpha=2.25)
    made.step({"forget": None, "retain": None})
    golden = torch.tensor(GOLDEN[f"Unlearn-Smooth/{trainer}"]["value"])
    assert made.w.grad is not None
    torch.testing.assert_close(made.w.grad, golden, rtol=1e-5, atol=1e-5)


def test_principal_directions_span_what_was_put_in():
    basis = torch.linalg.qr(numbers(8, 2, seed=15)).Q.T.float()
    rows = numbers(20, 2, seed=16, dtype=torch.float32) @ basis
    found = directions.principal(rows, 2)
    torch.testing.assert_close(found.T @ found, basis.T @ basis, rtol=1e-4, atol=1e-5)


def test_pairs_of_one_example_have_no_orthogonality_loss(toy):
    given = toy()
    one = given.batches["forget"].split(1)[0]
    assert float(circuit_breakers.apart(one, given.hidden["forget"][0, :1, :5].detach())) == 0.0
