"""Methods that are more than a loss, against their algorithms written out on the model itself in float64, row by row.

A stage on a tiny model with batches that hold every example, so that their order does not matter; a step's gradient
is taken where the optimizer would use it.
"""

from __future__ import annotations

import math
from dataclasses import replace
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
    """Rows of many lengths; of one unit, so that attacker and held-out text are all of them. What holds the retain
    activations is 0 at the first step, and without a gradient there."""
    options = {"mapping": 0.0, "inner_steps": 3, "readout_every": 2, "inner_lr": (1e-3,), "switch": 0.0}
    given = {role: [replace(e, unit="u") for e in rows] for role, rows in plain.VARIED.items()}
    run("tar", {**options, "inner_batch": 8}, tmp_path, given=given, **plain.WHOLE)
    p = plain(given)
    names = list(gradients[0])
    f, r = p.rows["forget"], p.rows["retain"]
    everything = [(ids, 1) for ids, _ in f]  # the entropy is taken over prompts too
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
    run("lat-rmu", options, tmp_path, given=plain.VARIED, **plain.WHOLE)
    p = plain(plain.VARIED)
    names, f = list(gradients[0]), p.rows["forget"]
    deltas = {ids.shape[1]: torch.zeros(1, ids.shape[1], 32, dtype=torch.float64) for ids, _ in f}
    assert len(deltas) == len(f), "a row is known by its length"
    for delta in deltas.values():
        delta.requires_grad_()

    def add(module: Any, given: Any, out: Any) -> Any:
        h = out[0] if isinstance(out, tuple) else out
        moved = h + deltas[h.shape[-2]]
        return (moved, *out[1:]) if isinstance(out, tuple) else moved

    hook = p.model.model.layers[1].register_forward_hook(add)
    adversary = torch.optim.AdamW(list(deltas.values()), lr=0.5, weight_decay=0.0)
    for _ in range(3):
        adversary.zero_grad()
        p.nll(f).backward(inputs=list(deltas.values()))
        adversary.step()
        with torch.no_grad():
            for delta in deltas.values():
                delta /= (delta.norm(dim=-1, keepdim=True) / 1.0).clamp_min(1.0)
    steered = torch.cat([p.hidden(ids)[2][1:] for ids, _ in f])
    loss = ((steered - 6.5 * u.double()) ** 2).mean()  # all tokens but the first, over the width
    hook.remove()  # the retain loss is 0, and so is its gradient
    assert max(float(d.detach().norm(dim=-1).max()) for d in deltas.values()) == pytest.approx(1.0)
    assert_alike(gradients[0], p.gradient(loss, names), rtol=5e-3)


def test_lat_rmu_is_the_same_in_bfloat16_but_for_its_rounding(run, plain, tmp_path):
    options = {"block": 2, "attack_steps": 3, "attack_lr": 0.5, "epsilon": 1.0, "updates": 1, "alpha": 3.0}
    found = [
        run("lat-rmu", options, tmp_path / str(dtype), dtype=dtype, given=plain.VARIED, **plain.WHOLE)[1][0]
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert found[1]["forget"] == pytest.approx(found[0]["forget"], rel=0.02)
    assert found[1]["grad_norm"] == pytest.approx(found[0]["grad_norm"], rel=0.05)


@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_repnoise_is_its_equation(beta, run, plain, gradients, tmp_path):
    """Its noise, drawn in the batch's order, is told apart only where the rows are alike."""
    given = plain.ALIKE if beta else plain.VARIED
    _, rows, _ = run("repnoise", {"alpha": 0.7, "beta": beta}, tmp_path, given=given, **plain.WHOLE)
    p = plain(given)
    terms: list[list[Tensor]] = [[] for _ in p.model.model.layers]
    discrepancies = []
    generator = torch.Generator().manual_seed(0)
    (ids, start), count = p.rows["forget"][0], len(p.rows["forget"])
    for h in p.hidden(ids):
        drawn = torch.randn((count, *h.shape), generator=generator).double()[:, start:].flatten(1)
        both = torch.cat([h[start:].flatten().expand(count, -1), drawn])
        squared = (both[:, None] - both[None]).square().sum(-1)
        width = squared.detach().sum() / (4 * count**2 - 2 * count)
        kernel = sum(torch.exp(-squared / (width / 4 * 2**i)) for i in range(5))
        sign = torch.tensor([1.0] * count + [-1.0] * count)
        discrepancies.append((sign[:, None] * sign[None] * kernel).sum() / count**2)
    for ids, start in p.rows["forget"]:
        for depth, h in enumerate(p.hidden(ids)):
            log_p = p.model.lm_head(p.model.model.norm(h)).log_softmax(-1)
            terms[depth] += [-log_p[t - 1, int(ids[0, t])] for t in range(start, ids.shape[1])]
    lens = torch.stack([torch.stack(depth).mean() for depth in terms]).mean()
    loss = p.nll(p.rows["retain"]) - 0.7 * torch.log(1 + lens)
    if beta:
        loss = loss + beta * torch.stack(discrepancies).mean()
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


def test_pdus_bound_is_the_base_models_retain_loss_and_some_slack(run, plain, tmp_path):
    """Every batch is the whole role, so that the first retain loss is the measured one."""
    options = {"alpha": 3.0, "eta": 2.0, "slack": 0.25, "warmup": 0.0}
    _, rows, _ = run("pdu", options, tmp_path, given=plain.VARIED, **plain.WHOLE)
    p = plain(plain.VARIED)
    assert rows[0]["retain"] == pytest.approx(float(p.nll(p.rows["retain"]).detach()), rel=1e-5)
    assert rows[0]["dual"] == pytest.approx(3.0 - 2.0 * 0.25, rel=1e-5)
    _, rows, _ = run("pdu", {**options, "retain": "kl"}, tmp_path / "kl", given=plain.VARIED, **plain.WHOLE)
    assert rows[0]["dual"] == pytest.approx(3.0 - 2.0 * 0.25, rel=1e-5), "the base model's KL is 0"


def test_npo_sam_steps_on_both_gradients(run, plain, gradients, tmp_path):
    """gamma times NPO's gradient at the perturbed weights, alpha times the retain gradient where the model is."""
    options = {"smoothness": "sam", "rho": 0.3, "gamma": 0.5, "alpha": 2.0, "beta": 0.2}
    run("npo-sam", options, tmp_path, given=plain.VARIED, **plain.WHOLE)
    p = plain(plain.VARIED)
    names, f = list(gradients[0]), p.rows["forget"]

    def likelihoods() -> Tensor:
        rows = [p.model(ids).logits[0].log_softmax(-1) for ids, _ in f]
        return torch.stack([
            torch.stack([log_p[t - 1, ids[0, t]] for t in range(start, ids.shape[1])]).sum()
            for log_p, (ids, start) in zip(rows, f, strict=True)
        ])  # fmt: skip

    base = likelihoods().detach()

    def npo() -> Tensor:
        return -(2 / 0.2) * torch.log(1 / (1 + torch.exp(0.2 * (likelihoods() - base)))).mean()

    retain, first = p.gradient(p.nll(p.rows["retain"]), names), p.gradient(npo(), names)
    norm = math.sqrt(sum(float(g.square().sum()) for g in first.values()))
    p.move(first, -0.3 / norm)
    there = p.gradient(npo(), names)
    assert max(float((there[n] - first[n]).abs().max()) for n in names) > 0.01 * norm
    assert_alike(gradients[0], {n: 0.5 * there[n] + 2.0 * retain[n] for n in names}, rtol=5e-3)


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


@pytest.mark.parametrize("adversary", ["same", "lora"])
def test_repselect_moves_along_the_filtered_gradient_of_a_relearned_model(adversary, run, plain, tmp_path):
    """Rows of many lengths; the adversary's fresh adapters, of rank 8 on every linear map, are the first draws."""
    rate = {"same": 0.05, "lora": 0.5}[adversary]
    options = {"inner_steps": 2, "inner_lr": rate, "components": 0.25, "rate": 1e-3, "budget": 9.0}
    model, _, result = run(
        "repselect", {**options, "adversary": adversary}, tmp_path, given=plain.VARIED, **plain.WHOLE
    )
    p, names = plain(plain.VARIED), list(result.original)
    f = p.rows["forget"]
    start = {n: p.weights[n].detach().clone() for n in names}
    before = p.gradient(-p.nll(f), names)
    if adversary == "same":
        for _ in range(2):
            p.move(p.gradient(p.nll(f), names), 0.05)
    else:
        adapters = _adapters(p)
        for _ in range(2):
            grads = torch.autograd.grad(p.nll(f), adapters)
            with torch.no_grad():
                for tensor, grad in zip(adapters, grads, strict=True):
                    tensor.sub_(grad, alpha=0.5)
    g = p.gradient(-p.nll(f), names)
    assert any(float((g[n] - before[n]).norm() / before[n].norm()) > 0.1 for n in names)
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


def _adapters(p: Any) -> list[Tensor]:
    """A and B of every linear map of the blocks, which they are added to from now on."""
    generator, made = torch.Generator().manual_seed(0), []
    for module in p.model.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            width = module.in_features
            a = ((2 * torch.rand(8, width, generator=generator) - 1) / math.sqrt(width)).double().requires_grad_()
            b = torch.zeros(module.out_features, 8, dtype=torch.float64, requires_grad=True)
            module.register_forward_hook(lambda m, given, out, a=a, b=b: out + given[0] @ a.T @ b.T)
            made += [a, b]
    return made


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
