"""Every loss over token distributions: value and gradient of the paper's equation, written out token by token in
float64 from the rows themselves (prompts, padding that looks like eos, and the label shift included)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_suite import LossObjective
from unlearn_suite.plugins import load_target
from unlearn_suite_baselines.cards import CARDS
from unlearn_suite_baselines.methods.mudman import Mudman
from unlearn_suite_baselines.methods.npo_sam import NpoSam
from unlearn_suite_baselines.methods.pdu import Pdu
from unlearn_suite_baselines.methods.tar import Tar

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SPECS = {card.SPEC.name: card.SPEC for card in CARDS}


def answers(rows: list[tuple[list[int], int]]) -> list[tuple[int, int, int]]:
    """(row, position of the logits that predict it, token) of every answer token; a text's first token has none."""
    return [(b, t - 1, ids[t]) for b, (ids, start) in enumerate(rows) for t in range(max(start, 1), len(ids))]


def log_p(z: Tensor) -> Tensor:
    return z - torch.log(torch.exp(z).sum())


class Formulas:
    """The equations, in float64. z: policy logits, q: base logits, by role."""

    def __init__(self, toy: Any) -> None:
        self.z = {r: x.detach().double().requires_grad_() for r, x in toy.logits.items()}
        self.q = {r: x.double() for r, x in toy.base.items()}
        self.rows = toy.rows

    def mean(self, role: str, of: Any) -> Tensor:
        terms = [of(self.z[role][b, t], self.q[role][b, t], y) for b, t, y in answers(self.rows[role])]
        return torch.stack(terms).mean()

    def nll(self, role: str) -> Tensor:
        return self.mean(role, lambda z, q, y: -log_p(z)[y])

    def kl(self, role: str) -> Tensor:
        return self.mean(role, lambda z, q, y: (log_p(q).exp() * (log_p(q) - log_p(z))).sum())

    def sequence(self, role: str, which: str, per_token: bool = False) -> list[Tensor]:
        x, out = getattr(self, which)[role], []
        for row in range(len(self.rows[role])):
            terms = [log_p(x[b, t])[y] for b, t, y in answers(self.rows[role]) if b == row]
            out.append(torch.stack(terms).mean() if per_token else torch.stack(terms).sum())
        return out

    def ratios(self, role: str, per_token: bool = False) -> list[Tensor]:
        return [a - b for a, b in zip(*(self.sequence(role, x, per_token) for x in "zq"), strict=True)]

    def squash(self, margins: list[Tensor], beta: float) -> Tensor:
        return torch.stack([-(2 / beta) * torch.log(1 / (1 + torch.exp(-beta * m))) for m in margins]).mean()

    def preferred(self, beta: float) -> Tensor:
        pairs = zip(self.ratios("alternate"), self.ratios("forget"), strict=True)
        return self.squash([wanted - unwanted for wanted, unwanted in pairs], beta)

    def lowered(self, z: Tensor, q: Tensor, y: int, beta: float) -> Tensor:
        teacher = q.clone()
        teacher[y] -= beta
        return -(log_p(teacher).exp() * log_p(z)).sum()

    def without(self, z: Tensor, y: int) -> Tensor:
        others = [v for v in range(len(z)) if v != y]
        target = torch.exp(z.detach()[others]) / torch.exp(z.detach()[others]).sum()
        return -(target * log_p(z)[others]).sum()

    def ceu(self, skip: int) -> Tensor:
        later = [a for a in answers(self.rows["forget"]) if a[1] + 1 >= max(self.rows["forget"][a[0]][1], 1) + skip]
        return torch.stack([self.without(self.z["forget"][b, t], y) for b, t, y in later]).mean()

    def weighted(self, b1: float, b2: float) -> Tensor:
        def of(z: Tensor, q: Tensor, y: int) -> Tensor:
            p = log_p(z)[y].exp().detach()
            return p**b1 * (1 - p) ** b2 * log_p(z)[y]

        return self.mean("forget", of)

    def chances(self, role: str) -> list[Tensor]:
        rows = range(len(self.rows[role]))
        found = [(b, log_p(self.z[role][b, t])[y].exp()) for b, t, y in answers(self.rows[role])]
        return [torch.stack([p for b, p in found if b == row]).mean() for row in rows]

    def widened(self, of: Any) -> Tensor:
        return torch.stack([of(e, f) for e, f in zip(*map(self.chances, ("alternate", "forget")), strict=True)]).mean()

    def jsd(self, p: Tensor, q: Tensor) -> Tensor:
        m = (p + q) / 2
        return sum(torch.where(x > 0, x * torch.log(x.clamp_min(1e-300) / m), x * 0).sum() for x in (p, q)) / 2

    def jensun(self) -> Tensor:
        per_row: dict[int, list[Tensor]] = {}
        for b, t, y in answers(self.rows["alternate"]):
            p = log_p(self.z["alternate"][b, t]).exp()
            per_row.setdefault(b, []).append(self.jsd(p, torch.eye(len(p), dtype=p.dtype)[y]))
        forget = torch.stack([torch.stack(terms).mean() for terms in per_row.values()]).mean()
        return forget + self.mean("retain", lambda z, q, y: self.jsd(log_p(z).exp(), log_p(q).exp()))

    def summed(self, p: Tensor, q: Tensor) -> Tensor:
        """(KL(p || m) + KL(q || m)) / 2 where q is no distribution; nothing is below 1e-9."""
        m, p, q = (x.clamp_min(1e-9) for x in ((p + q) / 2, p, q))
        return sum((x * torch.log(x / m)).sum() for x in (p, q)) / 2

    def jensun_everywhere(self) -> Tensor:
        """Every position of the texts as they are, mass 1 at both tokens of the target."""
        target = torch.zeros(120, dtype=torch.float64)
        target[TARGET] = 1.0
        forget = [self.summed(log_p(z).exp(), target) for z in self.z["forget"].flatten(0, 1)]
        pairs = zip(*(x["retain"].flatten(0, 1) for x in (self.z, self.q)), strict=True)
        held = [self.summed(log_p(q).exp(), log_p(z).exp()) for z, q in pairs]
        return torch.stack(forget).mean() + torch.stack(held).mean()

    def chosen_logit(self) -> Tensor:
        return self.mean("forget", lambda z, q, y: torch.relu(z[y] - z.mean()))

    def neg_entropy(self) -> Tensor:
        return self.mean("forget", lambda z, q, y: (log_p(z).exp() * log_p(z)).sum())

    def tamper(self) -> Tensor:
        """TAR's negative entropy is over prompts too."""
        tokens = [(b, t - 1) for b, (ids, _) in enumerate(self.rows["forget"]) for t in range(1, len(ids))]
        z = [self.z["forget"][b, t] for b, t in tokens]
        return torch.stack([(log_p(x).exp() * log_p(x)).sum() for x in z]).mean()

    def elm(self) -> Tensor:
        def towards(z: Tensor, q: Tensor, y: int) -> Tensor:
            return -0.75 * log_p(z)[y] - 0.25 * log_p(z)[(y + 1) % len(z)]

        return self.mean("forget", towards) - 2 * self.mean("retain", lambda z, q, y: log_p(z)[q.argmax()])

    def peak(self) -> Tensor:
        return self.mean("forget", lambda z, q, y: (z.max() - z.mean()) ** 2)

    # What public code computes, defects included.

    def kl_everywhere(self) -> Tensor:
        """KL over every position, prompts and padding too."""
        z, q = (x["retain"].flatten(0, 1) for x in (self.z, self.q))
        return torch.stack([(log_p(b).exp() * (log_p(b) - log_p(a))).sum() for a, b in zip(z, q, strict=True)]).mean()

    def undial_everywhere(self, beta: float) -> Tensor:
        """Every position but the last; where the label is ignored, Python's -100 lowers a token near the end."""
        label = {(b, t): y for b, t, y in answers(self.rows["forget"])}
        z, q = self.z["forget"], self.q["forget"]
        places = [(b, t) for b in range(z.shape[0]) for t in range(z.shape[1] - 1)]
        return torch.stack([self.lowered(z[b, t], q[b, t], label.get((b, t), -100), beta) for b, t in places]).mean()

    def chance_everywhere(self, role: str) -> Tensor:
        """Over all positions but the last of all rows, those that predict no answer token as zeros."""
        z = self.z[role]
        found = [log_p(z[b, t])[y].exp() for b, t, y in answers(self.rows[role])]
        return torch.stack(found).sum() / (z.shape[0] * (z.shape[1] - 1))

    def peak_unshifted(self) -> Tensor:
        """The logits at the answer's tokens; a text's first token has no label."""
        rows = enumerate(self.rows["forget"])
        z = [self.z["forget"][b, t] for b, (ids, start) in rows for t in range(max(start, 1), len(ids))]
        return torch.stack([(x.max() - x.mean()) ** 2 for x in z]).mean()


TARGET = [5, 9]
"""tokens of jensun's refusal, where it stands for every forget example"""

CASES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "gradient-ascent": ("gradient-ascent", {}, lambda f: -f.nll("forget")),
    "graddiff": ("graddiff", {"gamma": 0.7, "alpha": 1.3}, lambda f: -0.7 * f.nll("forget") + 1.3 * f.nll("retain")),
    "graddiff-kl": ("graddiff", {"retain": "kl"}, lambda f: -f.nll("forget") + f.kl("retain")),
    "npo": ("npo", {}, lambda f: f.squash([-r for r in f.ratios("forget")], 0.1) + f.nll("retain")),
    "npo-mean": (
        "npo",
        {"per_token": True, "alpha": 0.0, "beta": 2.0},
        lambda f: f.squash([-r for r in f.ratios("forget", True)], 2.0),
    ),
    "simnpo": (
        "simnpo",
        {"delta": 0.2},
        lambda f: 0.125 * f.squash([-s - 0.2 for s in f.sequence("forget", "z", True)], 4.5) + f.nll("retain"),
    ),
    "dpo": ("dpo", {}, lambda f: f.preferred(0.1) + f.nll("retain")),
    "idk-dpo": ("idk-dpo", {"beta": 0.3}, lambda f: f.preferred(0.3) + f.nll("retain")),
    "altpo": ("altpo", {"alpha": 2.0}, lambda f: f.preferred(0.1) + 2 * f.nll("retain")),
    "undial": ("undial", {}, lambda f: f.mean("forget", lambda z, q, y: f.lowered(z, q, y, 10.0))),
    "wga": ("wga", {"beta": 1.5}, lambda f: f.weighted(1.5, 0.0) + f.nll("retain")),
    "satimp": ("satimp", {"beta1": 2.0}, lambda f: 0.1 * f.weighted(2.0, 1.0) + f.nll("retain")),
    "ceu": ("ceu", {}, lambda f: f.ceu(1)),
    "flat": ("flat", {}, lambda f: f.widened(lambda e, p: -e + torch.exp(p - 1))),
    "flat-tv": (
        "flat",
        {"divergence": "tv"},
        lambda f: f.widened(lambda e, p: -torch.tanh(e) / 2 + torch.tanh(p) / 2),
    ),
    "flat-pearson": (
        "flat",
        {"divergence": "pearson"},
        lambda f: f.widened(lambda e, p: -e + p**2 / 4 + p),
    ),
    "flat-js": (
        "flat",
        {"divergence": "js"},
        lambda f: f.widened(lambda e, p: torch.log((1 + torch.exp(-e)) * (1 + torch.exp(-p)) / 4) + p),
    ),
    "flat-legacy": (
        "flat",
        {"legacy": True},
        lambda f: -f.chance_everywhere("alternate") + torch.exp(f.chance_everywhere("forget") - 1),
    ),
    "graddiff-kl-legacy": (
        "graddiff",
        {"retain": "kl", "legacy": True},
        lambda f: -f.nll("forget") + f.kl_everywhere(),
    ),
    "undial-legacy": ("undial", {"legacy": True}, lambda f: f.undial_everywhere(10.0)),
    "pdu-legacy": ("pdu", {"legacy": True, "eps": 0.3}, lambda f: f.peak_unshifted() + 100 * f.nll("retain")),
    "jensun": ("jensun", {}, lambda f: f.jensun()),
    "jensun-legacy": ("jensun", {"legacy": True}, lambda f: f.jensun_everywhere()),
    "task-arithmetic": ("task-arithmetic", {}, lambda f: f.nll("forget")),
    "whp": ("whp", {}, lambda f: f.mean("forget", lambda z, q, y: -log_p(z)[(y + 1) % 120])),
    "mudman-neg_entropy": ("mudman", {}, lambda f: f.neg_entropy()),
    "mudman-neg_cross_entropy": ("mudman", {"unlearn": "neg_cross_entropy"}, lambda f: -f.nll("forget")),
    "mudman-correct_logit": ("mudman", {"unlearn": "correct_logit"}, lambda f: f.chosen_logit()),
    "tar": ("tar", {}, lambda f: f.tamper()),
    "elm": ("elm", {"consistency_weight": 0, "retain_weight": 2.0}, lambda f: f.elm()),
    "pdu": ("pdu", {"eps": 0.3}, lambda f: f.peak() + 100 * f.nll("retain")),
}


def objective(name: str, options: dict[str, Any], toy: Any) -> Any:
    """The objective on given logits; what its `setup` would take from data is put in its place."""
    spec = SPECS[name]
    made = load_target(spec.load)(spec.config(**options))
    made.ctx = toy.ctx
    made.pairs = SimpleNamespace(partner=lambda batch: toy.batches["alternate"])
    made.targets = {
        example.id: soft_targets([ids[t] for t in range(max(n, 1), len(ids))])
        for example, (ids, n) in zip(toy.batches["forget"].examples, toy.rows["forget"], strict=True)
    }
    made.labels = {name: (ids[:, 0] + 1) % 120 for name, (ids, _) in made.targets.items()}
    made.wanted = dict.fromkeys(made.targets, TARGET)
    made.dual = getattr(spec.config(**options), "alpha", 0.0)
    return made


def loss_of(made: Any, batches: Any) -> Tensor:
    """The loss; of methods with several, the one on forget text."""
    if isinstance(made, Mudman):
        return made._unlearn(batches).total()
    return made._tamper(batches["forget"]) if isinstance(made, Tar) else made.loss(batches).total()


def soft_targets(tokens: list[int]) -> tuple[Tensor, Tensor]:
    """ELM's sparse targets: three quarters on the token itself, one on the next id."""
    ids = torch.tensor([[t, (t + 1) % 120] for t in tokens])
    return ids, torch.tensor([0.75, 0.25]).expand(len(tokens), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_equal_the_equation(case, dtype, toy):
    name, options, formula = CASES[case]
    given = toy(dtype)
    made = objective(name, options, given)
    if name == "ceu":  # its setup moves where the answers begin
        made.setup(SimpleNamespace(**vars(given.ctx), roles={"forget": SimpleNamespace(encoded=_encoded(given))}))
        given.batches["forget"] = _collated(made.ctx.roles["forget"].encoded)
    total = loss_of(made, given.batches)
    total.backward()
    plain = Formulas(given)
    expected = formula(plain)
    expected.backward()
    torch.testing.assert_close(total.double(), expected, rtol=2e-5, atol=1e-6)
    tolerance = {"rtol": 1e-4, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-4}
    for role, z in plain.z.items():
        ours = given.logits[role].grad
        assert (ours is None) == (z.grad is None), role
        if ours is not None:
            torch.testing.assert_close(ours.double(), z.grad, **tolerance)


def _encoded(given: Any) -> list[Any]:
    from unlearn_suite.engine.batch import Encoded

    examples = given.batches["forget"].examples
    return [Encoded(e, tuple(ids), n) for e, (ids, n) in zip(examples, given.rows["forget"], strict=True)]


def _collated(encoded: list[Any]) -> Any:
    from unlearn_suite.engine.batch import collate

    return collate(encoded, 2)


PUBLIC: dict[str, tuple[str, dict[str, Any], Any]] = {
    "open-unlearning/compute_kl_divergence": ("graddiff", {"retain": "kl", "legacy": True}, "retain"),
    "open-unlearning/compute_batch_nll": ("graddiff", {}, "retain"),
    "open-unlearning/GradAscent": ("gradient-ascent", {}, "forget"),
    "open-unlearning/compute_dpo_loss npo": ("npo", {}, "forget"),
    "open-unlearning/compute_dpo_loss": ("dpo", {}, "forget"),
    "open-unlearning/compute_dpo_loss idk": ("idk-dpo", {}, "forget"),
    "open-unlearning/compute_dpo_loss altpo": ("altpo", {}, "forget"),
    "open-unlearning/SimNPO": ("simnpo", {"beta": 0.25}, "forget"),
    "open-unlearning/compute_undial_loss": ("undial", {"legacy": True}, "forget"),
    "open-unlearning/compute_wga_loss": ("wga", {}, "forget"),
    "open-unlearning/compute_satimp_loss": ("satimp", {"beta1": 0.5}, "forget"),
    "open-unlearning/compute_batch_ceu": ("ceu", {}, "forget"),
    "flat/kl of a batch": ("flat", {"legacy": True}, "forget"),
    "open-unlearning/PDU": ("pdu", {"legacy": True, "eps": 0.3}, "forget"),
    "JensUn/jensun_multitok_loss": ("jensun", {"legacy": True}, "forget"),
    "JensUn/jensun_retain_loss": ("jensun", {"legacy": True}, "retain"),
}


@pytest.mark.parametrize("divergence", ["kl", "tv", "js", "pearson"])
def test_flat_equals_what_the_public_code_gave(divergence):
    from unlearn_suite_baselines.methods.flat import DIVERGENCE

    ours = DIVERGENCE[divergence](torch.tensor(0.3), torch.tensor(0.6))
    assert float(ours) == pytest.approx(GOLDEN[f"flat/{divergence}"]["value"], rel=2e-5)


@pytest.mark.parametrize("function", PUBLIC)
def test_value_equals_what_the_public_code_gave(function, toy):
    """golden.json: the public function's value on these very tensors in float64, with the commit it was run at."""
    name, options, part = PUBLIC[function]
    given = toy(torch.float32)
    made = objective(name, options, given)
    if name == "ceu":
        made.setup(SimpleNamespace(**vars(given.ctx), roles={"forget": SimpleNamespace(encoded=_encoded(given))}))
        given.batches["forget"] = _collated(made.ctx.roles["forget"].encoded)
    ours = float(made.loss(given.batches).parts[part].detach())
    assert ours == pytest.approx(GOLDEN[KIN.get(function, function)]["value"], rel=2e-5)


KIN = {f"open-unlearning/compute_dpo_loss {name}": "open-unlearning/compute_dpo_loss" for name in ("idk", "altpo")}
"""cases of one public function"""


def test_npo_per_token_equals_what_unlearn_smooth_gave(toy):
    """One example, because that code takes one mean over all tokens of a batch before the sigmoid."""
    given = toy(torch.float32)
    made = NpoSam(SPECS["npo-sam"].config(legacy=True, beta=0.5))
    made.ctx = given.ctx
    (ours,) = made._forget({"forget": given.row("forget", 2)}).parts.values()
    assert float(ours.detach()) == pytest.approx(GOLDEN["Unlearn-Smooth/NPO_FT"]["value"], rel=2e-5)


def test_the_dual_variable_follows_the_public_code(monkeypatch):
    """Retain losses 1, 1/4, 1/8 and 0 with eps .3 and a step of 5; nothing moves during the warm-up."""
    made = Pdu(SPECS["pdu"].config(eps=0.3, warmup=0.5))
    made.dual, made.eps = made.config.alpha, made.config.eps
    made.ctx = SimpleNamespace(step_index=0, train=SimpleNamespace(steps=8))
    retain = iter((9.0, 1.0, 0.25, 0.125, 0.0))
    monkeypatch.setattr(LossObjective, "step", lambda self, batch: {"retain": next(retain)})
    assert made.step({})["dual"] == 100.0
    made.ctx.step_index = 4
    found = [made.step({})["dual"] for _ in range(4)]
    assert found == pytest.approx(GOLDEN["open-unlearning/PDU.final_loss_value dual"]["value"], rel=1e-6)
