"""Methods that are more than a loss, against their algorithms written out on the model itself in float64, row by row.

A stage on a tiny model with batches that hold every example, so that their order does not matter; a step's gradient
is taken where the optimizer would use it.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_suite.specs import Example
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_baselines.methods import whp
from unlearn_suite_baselines.methods.pdu import Pdu
from unlearn_suite_baselines.methods.rmu import Steering


def assert_alike(ours: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-3) -> None:
    """Equal up to float32: small against each tensor's largest entry."""
    assert ours
    for name, g in ours.items():
        size = float(expected[name].abs().max())
        error = float((g.double() - expected[name]).abs().max().detach())
        assert error <= rtol * max(size, 1e-6), (name, error, size)


def test_mudman_is_its_algorithm(run, plain, tmp_path):
    """Two steps: retain average and step, a relearning adversary that lives on, masked and normalised unlearning."""
    rates = {"unlearning_rate": 0.05, "retaining_rate": 0.02, "adversary_rate": 0.1, "momentum": 0.8}
    model, _, result = run(
        "mudman", {**rates, "fork_every": 2}, tmp_path, given=plain.VARIED, **{**plain.WHOLE, "steps": 2}
    )
    p, names = plain(plain.VARIED), list(result.original)
    f, r = p.rows["forget"], p.rows["retain"]

    def norm(g: dict[str, Tensor]) -> float:
        return math.sqrt(sum(float(x.square().sum()) for x in g.values()))

    first = norm(p.gradient(p.neg_entropy(f), names))
    average = {n: torch.zeros_like(p.weights[n]) for n in names}
    adversary: dict[str, Tensor] = {}
    for step in range(2):
        if step == 0:
            adversary = {n: p.weights[n].detach().clone() for n in names}
        g = p.gradient(p.nll(r), names)
        average = {n: 0.8 * average[n] + 0.2 * g[n] for n in names}
        p.move(average, rates["retaining_rate"])
        own = {n: p.weights[n].detach().clone() for n in names}
        with torch.no_grad():
            for n in names:
                p.weights[n].copy_(adversary[n])
        p.move(p.gradient(p.nll(f), names), rates["adversary_rate"])
        adversary = {n: p.weights[n].detach().clone() for n in names}
        g = p.gradient(p.neg_entropy(f), names)
        with torch.no_grad():
            for n in names:
                p.weights[n].copy_(own[n])
        masked = {n: g[n] * (average[n].sign() == g[n].sign()) for n in names}
        p.move(masked, rates["unlearning_rate"] * first / norm(g))
    before, after = dict(tiny_model().named_parameters()), dict(model.named_parameters())
    ours = torch.cat([(after[n] - before[n]).double().flatten() for n in names])
    expected = torch.cat([(p.weights[n] - before[n].double()).flatten() for n in names])
    near = (ours - expected).abs() <= 1e-4 * expected.abs().max()
    assert near.double().mean() > 0.999, "but for gradients whose sign is rounding"


def test_tar_adds_the_gradients_of_an_attacked_model(run, plain, gradients, tmp_path):
    options = {"mapping": 0.0, "inner_steps": 3, "readout_every": 2, "inner_lr": (1e-3,), "switch": 0.0}
    run("tar", options, tmp_path, given=plain.ALIKE, **plain.WHOLE)
    p = plain(plain.ALIKE)
    names = list(gradients[0])
    f, r = p.rows["forget"][:1], p.rows["retain"][:1]
    everything = [(ids, 1) for ids, _ in f]  # the entropy is taken over prompts too
    base = [h.detach() for h in p.hidden(r[0][0])]
    held = torch.stack(
        [(h - b)[1:].norm(dim=-1).mean() for h, b in zip(p.hidden(r[0][0]), base, strict=True)]
    ).mean()  # 0 at the first step, and without a gradient there
    assert held.item() == 0.0
    expected = p.gradient(p.nll(r), names)
    attacker = torch.optim.AdamW(list(p.weights.values()), lr=1e-3, weight_decay=0.0)
    for k in (1, 2, 3):
        attacker.zero_grad()
        p.nll(f).backward()
        attacker.step()
        if k in (2, 3):  # every second step, and the last one
            weight = 4.0 * math.exp(0.0625 * (k - 3))
            for name, g in p.gradient(p.neg_entropy(everything), names).items():
                expected[name] = expected[name] + weight * g
    assert_alike(gradients[0], expected, rtol=3e-3)


def test_tar_starts_with_random_mapping_and_half_the_steps(run, plain, tmp_path):
    _, rows, _ = run(
        "tar", {"mapping": 0.5, "inner_steps": 1}, tmp_path, given=plain.ALIKE, **{**plain.WHOLE, "steps": 4}
    )
    assert ["forget" in row for row in rows] == [True, True, False, False]


def test_lat_rmu_steps_on_perturbed_activations(run, plain, gradients, tmp_path, monkeypatch):
    u = torch.linspace(-1, 1, 32) / torch.linspace(-1, 1, 32).norm()
    monkeypatch.setattr(Steering, "_unit", lambda self: u.clone())
    options = {"block": 2, "attack_steps": 3, "attack_lr": 0.5, "epsilon": 1.0, "updates": 1, "alpha": 3.0}
    run("lat-rmu", options, tmp_path, given=plain.ALIKE, **plain.WHOLE)
    p = plain(plain.ALIKE)
    names = list(gradients[0])
    (ids, start), below = p.rows["forget"][0], p.model.model.layers[1]
    delta = torch.zeros(1, ids.shape[1], 32, dtype=torch.float64, requires_grad=True)

    def add(module: Any, given: Any, out: Any) -> Any:
        return (out[0] + delta, *out[1:]) if isinstance(out, tuple) else out + delta

    hook = below.register_forward_hook(add)
    adversary = torch.optim.AdamW([delta], lr=0.5, weight_decay=0.0)
    for _ in range(3):
        (delta.grad,) = torch.autograd.grad(p.nll([(ids, start)]), [delta])
        adversary.step()
        with torch.no_grad():
            delta /= (delta.norm(dim=-1, keepdim=True) / 1.0).clamp_min(1.0)
    steered = p.hidden(ids)[2][1:]
    loss = ((steered - 6.5 * u.double()) ** 2).mean()  # all tokens but the first, over the width
    hook.remove()  # the retain loss is 0, and so is its gradient
    assert float(delta.detach().norm(dim=-1).max()) == pytest.approx(1.0)
    assert_alike(gradients[0], p.gradient(loss, names), rtol=5e-3)


def test_repnoise_is_its_equation(run, plain, gradients, tmp_path):
    """Without the noise term, whose draws are the stage's own (`mmd` is tested by itself)."""
    _, rows, _ = run("repnoise", {"alpha": 0.7, "beta": 0.0}, tmp_path, given=plain.VARIED, **plain.WHOLE)
    p = plain(plain.VARIED)
    terms: list[list[Tensor]] = [[] for _ in p.model.model.layers]
    for ids, start in p.rows["forget"]:
        for depth, h in enumerate(p.hidden(ids)):
            log_p = p.model.lm_head(p.model.model.norm(h)).log_softmax(-1)
            terms[depth] += [-log_p[t - 1, int(ids[0, t])] for t in range(start, ids.shape[1])]
    lens = torch.stack([torch.stack(depth).mean() for depth in terms]).mean()
    loss = p.nll(p.rows["retain"]) - 0.7 * torch.log(1 + lens)
    assert rows[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert_alike(gradients[0], p.gradient(loss, list(gradients[0])))


def test_elm_is_its_equation(run, plain, gradients, tmp_path):
    """Targets of three prefixes, the base model's own choices on retain text, and the sampled changes of subject."""
    options = {"concept": "hats", "top_k": 5, "eta": (1.0, 3.0), "retain_weight": 0.5, "consistency_weight": 2.0}
    run("elm", options, tmp_path, given=plain.VARIED, **plain.WHOLE)
    p = plain(plain.VARIED)
    tokens = tiny_tokenizer()
    expert = "A leading expert on hats wrote this, precise in every detail:\n"
    novice = "Someone who has never heard of hats wrote this and soon talks of other things:\n"
    erase, held = [], []
    for ids, start in p.rows["forget"]:
        n = ids.shape[1] - start

        def view(prefix: str, ids: Tensor = ids, n: int = n) -> Tensor:
            before = torch.tensor([tokens(prefix)["input_ids"]], dtype=torch.long)
            z = p.model(torch.cat([before, ids], dim=1) if prefix else ids).logits[0, -n - 1 : -1]
            return (z.detach() / 1.2).log_softmax(-1)

        score = view("") - torch.linspace(1, 3, n, dtype=torch.float64)[:, None] * (view(expert) - view(novice))
        lowest = score.topk(5, dim=1).values[:, -1:]
        target = score.masked_fill(score < lowest, float("-inf")).softmax(-1)
        log_p = p.model(ids).logits[0, start - 1 : -1].log_softmax(-1)
        erase.append(-(target * log_p).sum(1))
    for ids, start in p.rows["retain"]:
        log_p = p.model(ids).logits[0, start - 1 : -1].log_softmax(-1)
        held.append(-log_p.max(dim=1).values)
    change = " But let us talk about something more pleasant:"
    changes = [
        Example("c", f"{change} then {f'{e.prompt}{e.text}{change}'[-3:]} no 0", f"{e.prompt}{e.text}")
        for e in plain.VARIED["forget"]
    ]
    loss = torch.cat(erase).mean() + 0.5 * torch.cat(held).mean() + 2.0 * p.nll(p.encoded(changes))
    assert_alike(gradients[0], p.gradient(loss, list(gradients[0])))


def test_whp_trains_on_the_generic_choices(run, plain, gradients, tmp_path):
    """After the first step the model is the reinforced one; the second step trains the base model on the labels."""
    _, rows, _ = run("whp", {"scale": 3.0}, tmp_path, given=plain.VARIED, lr=0.02, **{**plain.WHOLE, "steps": 2})
    p, trained = plain(plain.VARIED), plain(plain.VARIED)
    g = trained.gradient(trained.nll(trained.rows["forget"]), list(gradients[0]))
    trained.move({n: x / (x.abs() + 1e-8) for n, x in g.items()}, 0.02)  # AdamW's first step
    terms = []
    for ids, start in p.rows["forget"]:
        z = p.model(ids).logits[0, start - 1 : -1]
        up = trained.model(ids).logits[0, start - 1 : -1]
        labels = whp.generic(z.detach(), up.detach(), 3.0).argmax(1)
        terms.append(-z.log_softmax(-1)[torch.arange(len(labels)), labels])
    loss = torch.cat(terms).mean()
    assert rows[1]["forget"] == pytest.approx(loss.item(), rel=1e-4)
    assert_alike(gradients[1], p.gradient(loss, list(gradients[1])))


def test_pdus_dual_variable_follows_the_retain_loss_and_is_kept(run, plain, tmp_path):
    options = {"eps": 0.5, "eta": 2.0, "alpha": 3.0, "warmup": 0.25}
    _, rows, _ = run("pdu", options, tmp_path, **{**plain.WHOLE, "steps": 4, "lr": 1e-2})
    dual = 3.0
    for step, row in enumerate(rows):
        dual = max(0.0, dual + 2.0 * (row["retain"] - 0.5)) if step >= 1 else dual
        assert row["dual"] == pytest.approx(dual, rel=1e-6)
    kept = Pdu.__new__(Pdu)
    kept.load_state_dict({"dual": dual})
    assert kept.state_dict() == {"dual": dual} and dual > 3.0


def test_adaptive_rmu_measures_the_base_activations(run, plain, tmp_path):
    _, rows, _ = run("adaptive-rmu", {"block": 2, "scale": 4.0}, tmp_path, given=plain.ALIKE, **plain.WHOLE)
    p = plain(plain.ALIKE)
    h = p.hidden(p.rows["forget"][0][0])[2][1:]
    # |h - c u|^2 = |h|^2 - 2 c h.u + c^2 for a unit u on the positive orthant: c is what makes the loss
    c = 4.0 * float(h.detach().norm(dim=-1).mean())
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(32, generator=generator)
    loss = ((h - c * (u / u.norm()).double()) ** 2).mean()
    assert rows[0]["forget"] == pytest.approx(float(loss.detach()), rel=1e-4)


def test_repselect_moves_along_the_filtered_gradient_of_a_relearned_model(run, plain, tmp_path):
    options = {"adversary": "same", "inner_steps": 2, "inner_lr": 0.05, "components": 0.25, "rate": 1e-3, "budget": 9.0}
    model, _, result = run("repselect", options, tmp_path, given=plain.ALIKE, **plain.WHOLE)
    p, names = plain(plain.ALIKE), list(result.original)
    f = p.rows["forget"][:1]
    start = {n: p.weights[n].detach().clone() for n in names}
    for _ in range(2):
        p.move(p.gradient(p.nll(f), names), 0.05)
    g = p.gradient(-p.nll(f), names)
    filtered = {}
    for n in names:
        u, s, vh = torch.linalg.svd(g[n], full_matrices=False)
        top = max(1, round(0.25 * len(s)))
        s2 = s.clone()
        s2[:top] = s[:top] / (s[:top] / s[top - 1]) ** 2  # each side divides by s_k / s_min
        filtered[n] = u @ torch.diag(s2) @ vh
    size = math.sqrt(sum(float(start[n].square().sum()) for n in names))
    norm = math.sqrt(sum(float(x.square().sum()) for x in filtered.values()))
    after = dict(model.named_parameters())
    moved = {n: (start[n] - after[n].double()) for n in names}
    assert_alike(moved, {n: 1e-3 * size * filtered[n] / norm for n in names}, rtol=2e-2)


def test_cir_moves_by_a_length_along_its_gradient(run, plain, tmp_path):
    """Nothing is collapsed here (`collapsed` is tested by itself); blocks 1 and 2 of the tiny model are broken."""
    model, rows, result = run("cir", {"components": 0, "rate": 0.05}, tmp_path, given=plain.VARIED, **plain.WHOLE)
    p, names, losses = plain(plain.VARIED), list(result.original), []
    for layer in p.model.model.layers[1:3]:
        found: list[Tensor] = []
        hook = layer.mlp.register_forward_hook(lambda m, i, out, found=found: found.append(out[0, 1:]))
        for ids, _ in p.rows["forget"]:
            p.model(ids)
        hook.remove()
        o = torch.cat(found)
        losses.append(((o * o.detach()).sum(-1).relu() / o.detach().norm(dim=-1).mean() ** 2).mean())
    g = p.gradient(torch.stack(losses).mean(), names)
    norm = math.sqrt(sum(float(x.square().sum()) for x in g.values()))
    after = dict(model.named_parameters())
    moved = {n: p.weights[n].detach() - after[n].double() for n in names}
    assert rows[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert_alike(moved, {n: 0.05 * g[n] / norm for n in names}, rtol=5e-3)
