"""Losses on activations and edits of weights, against formulas in float64."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_suite.plugins import load_target
from unlearn_suite_baselines.cards import CARDS
from unlearn_suite_baselines.methods import (
    cir,
    circuit_breakers,
    directions,
    elm,
    tar,
)
from unlearn_suite_baselines.methods.random_mapping import TokenVectors

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


def test_principal_directions_span_what_was_put_in():
    basis = torch.linalg.qr(numbers(8, 2, seed=15)).Q.T.float()
    rows = numbers(20, 2, seed=16, dtype=torch.float32) @ basis
    found = directions.principal(rows, 2)
    torch.testing.assert_close(found.T @ found, basis.T @ basis, rtol=1e-4, atol=1e-5)


def test_pairs_of_one_example_have_no_orthogonality_loss(toy):
    pooled = toy().hidden["forget"][0, :1, :5].mean(1)
    assert float(circuit_breakers.apart(pooled.detach(), torch.tensor([5]))) == 0.0
