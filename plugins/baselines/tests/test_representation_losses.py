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

    def rmu(self, targets: dict[str, Tensor], alpha: float) -> Tensor:
        forget = self.mean("forget", [1], lambda h, g, b, t: ((h - targets[f"g{b % 2}"].double()) ** 2).sum() / len(h))
        return forget + alpha * self.mean("retain", [1], lambda h, g, b, t: ((h - g) ** 2).sum() / len(h))

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

CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "rmu": ({}, lambda f: f.rmu(TARGETS, 1200.0)),
    "adaptive-rmu": ({"alpha": 7.0}, lambda f: f.rmu(TARGETS, 7.0)),
    "circuit-breakers": (
        {"targets": (1, 2), "retain_weight": 0.5},
        lambda f: 0.5 * 10 * (S / 2) * f.held([0, 1, 2, 3]) + 10 * (1 - S / 2) * f.rerouting([1, 2]),
    ),
    "orth-circuit-breakers": (
        {"targets": (0, 2)},
        lambda f: 2 * S * f.held([0, 2]) + 23 * (1 - S / 4) * f.rerouting([0, 2]) + 10 * S * f.orth([0, 2]),
    ),
    "random-mapping": ({}, lambda f: f.mapped(TokenVectors(6, 0)) + f.nll("retain")),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_equation(name, dtype, toy):
    options, formula = CASES[name]
    given = toy(dtype)
    made = load_target(SPECS[name].load)(SPECS[name].config(**options))
    made.ctx, made.block, made.vectors = given.ctx, 1, TokenVectors(6, 0)
    if name in ("rmu", "adaptive-rmu"):
        made.targets = {topic: u[0] for topic, u in TARGETS.items()}
    elif "circuit" in name:
        made.targets, made.held = made.target_blocks(_shape()), made.held_blocks(_shape())
    total = made.loss(given.batches).total()
    total.backward()
    plain = Formulas(given)
    expected = formula(plain)
    expected.backward()
    torch.testing.assert_close(total.double(), expected, rtol=2e-5, atol=1e-6)
    for role, h in plain.h.items():
        ours = given.hidden[role].grad
        assert (ours is None) == (h.grad is None), role
        if ours is not None:
            torch.testing.assert_close(ours.double(), h.grad, **TOLERANCE[dtype])


def _shape() -> Any:
    return SimpleNamespace(n_blocks=4, check_block=lambda block: block)


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


def test_principal_directions_span_what_was_put_in():
    basis = torch.linalg.qr(numbers(8, 2, seed=15)).Q.T.float()
    rows = numbers(20, 2, seed=16, dtype=torch.float32) @ basis
    found = directions.principal(rows, 2)
    torch.testing.assert_close(found.T @ found, basis.T @ basis, rtol=1e-4, atol=1e-5)


def test_pairs_of_one_example_have_no_orthogonality_loss(toy):
    given = toy()
    one = given.batches["forget"].split(1)[0]
    assert float(circuit_breakers.apart(one, given.hidden["forget"][0, :1, :5].detach())) == 0.0
