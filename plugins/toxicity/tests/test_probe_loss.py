"""The whole loss of probe-directions against its equation in float64, on transformers' own activations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from unlearn_suite.testing.tiny import tiny_model

WEIGHTS = {
    "retain_weight": 3.0,
    "anchor_weight": 1.5,
    "perp_weight": 2.0,
    "kl_weight": 0.5,
    "kl_every": 2,
    "ce_weight": 0.7,
    "nll_weight": 0.9,
}
LOSSES = {
    "hinge": {"kappa": 0.3},
    "cosine": {"cosine_floor": -0.1},
    "match": {},
    "logit": {},
    "counterfactual": {},
    "hinge-multi": {"loss": "hinge", "direction": "multi", "subspace": 2},
    "counterfactual-leace": {"loss": "counterfactual", "direction": "leace-edit"},
    "hinge-all": {"loss": "hinge", "positions": "all"},
}


@pytest.fixture(params=LOSSES)
def moved(request, stage):
    """A stage that has been set up, its trained weights then moved."""
    options = {"loss": request.param, **LOSSES[request.param]}
    ran = stage(layer_weights="auroc", train={"steps": 0}, **WEIGHTS, **options)
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in ran.objective.ctx.trainable.values():
            p.add_(0.2 * torch.randn(p.shape, generator=drawn))
    ran.objective.ctx.views.clear()
    return ran


def read(model, batch):
    """({block: [B, T, D]}, [B, T - 1, V] log-probs of the token after each position), float64."""
    with torch.no_grad():
        out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
    return {b: out.hidden_states[b + 1].numpy() for b in (1, 2)}, out.logits[:, :-1].log_softmax(-1).numpy()


def forget_term(config, h, ref, d):
    """P1 to P5 as docs/explanation/probe-directions.md has them, [B, T]."""
    axes = [
        {
            n: getattr(a, n).double().numpy() if torch.is_tensor(getattr(a, n)) else getattr(a, n)
            for n in a.__dataclass_fields__
        }
        for a in d.axes
    ]
    if config.loss == "counterfactual":
        target = ref.copy()
        for a in axes:
            share = np.maximum(ref @ a["read"] - a["mu0"], 0) / (a["read"] @ a["edit"])
            target = target - share[..., None] * a["edit"]
        return ((h - target) ** 2).sum(-1) / (ref**2).sum(-1)
    found = []
    for a in axes:
        onto = h @ a["read"]
        if config.loss == "hinge":
            found.append(np.maximum((onto - a["mu0"] - config.kappa * a["sd0"]) / a["scale"], 0))
        elif config.loss == "match":
            found.append(((onto - a["mu0"]) / a["scale"]) ** 2)
        elif config.loss == "logit":
            found.append(np.log1p(np.exp(h @ a["weight"] + a["bias"])))
        else:
            rest = h - d.centre.double().numpy()
            found.append(np.maximum(rest @ a["read"] / np.linalg.norm(rest, axis=-1) - config.cosine_floor, 0))
    return np.mean(found, axis=0)


def across(h, ref, d):
    """|(I - V V^T)(h - h_ref)|^2 / |h_ref|^2, [B, T]."""
    v = np.stack([a.edit.double().numpy() for a in d.axes])
    moved = h - ref
    moved = moved - (moved @ v.T) @ v
    return (moved**2).sum(-1) / (ref**2).sum(-1)


def along(h, ref, d):
    """((h - h_ref).v / s)^2, mean over axes, [B, T]."""
    return np.mean([((h - ref) @ a.read.double().numpy() / a.scale) ** 2 for a in d.axes], axis=0)


def mean(x, mask):
    return float(x[mask.numpy()].mean())


def test_the_whole_loss_is_its_equation(moved):
    objective, ctx, config = moved.objective, moved.objective.ctx, moved.objective.config
    steering = objective.steering
    ctx.step_index = 0
    batch = {role: ctx.draw(role, 0) for role in ("forget", "retain", "reply")}
    found = objective.loss(batch)
    policy, base = moved.model.double(), tiny_model("llama").double()
    shares = {b: steering.probes[b].auroc - 0.5 for b in (1, 2)}
    shares = {b: s / sum(shares.values()) for b, s in shares.items()}
    assert steering.weights == pytest.approx(shares)

    f, r, reply = batch["forget"], batch["retain"], batch["reply"]
    over = "content" if config.positions == "all" else "response"
    (h, _), (ref, _) = read(policy, f), read(base, f)
    directions = steering.directions
    expected = {
        "forget": sum(
            s * mean(forget_term(config, h[b], ref[b], directions[b]), f.mask(over)) for b, s in shares.items()
        )
    }
    if config.loss != "counterfactual":
        expected["perp"] = sum(s * mean(across(h[b], ref[b], directions[b]), f.mask(over)) for b, s in shares.items())
    firsts = {b: (d.axes[0].read.double().numpy(), d.axes[0]) for b, d in directions.items()}
    scalars = {
        f"projection_{b}": mean((h[b] @ v - a.mu0) / a.scale, f.mask("response")) for b, (v, a) in firsts.items()
    }
    (h, p_now), (ref, p_ref) = read(policy, r), read(base, r)
    scalars |= {f"shift_{b}": mean((h[b] - ref[b]) @ v / a.scale, r.mask("content")) for b, (v, a) in firsts.items()}
    expected["retain"] = sum(
        s * mean(((h[b] - ref[b]) ** 2).sum(-1) / (ref[b] ** 2).sum(-1), r.mask("content")) for b, s in shares.items()
    )
    expected["anchor"] = sum(s * mean(along(h[b], ref[b], directions[b]), r.mask("content")) for b, s in shares.items())
    expected["kl"] = mean((np.exp(p_ref) * (p_ref - p_now)).sum(-1), r.mask("content")[:, 1:])
    label = np.take_along_axis(p_now, r.input_ids[:, 1:, None].numpy(), -1)[..., 0]
    expected["nll"] = -mean(label, r.mask("content")[:, 1:])
    _, p_now = read(policy, reply)
    label = np.take_along_axis(p_now, reply.input_ids[:, 1:, None].numpy(), -1)[..., 0]
    expected["ce"] = -mean(label, reply.mask("response")[:, 1:])

    assert {n: float(p.detach()) for n, p in found.parts.items()} == pytest.approx(expected, rel=2e-4)
    told = {n: float(v) for n, v in found.scalars.items() if n.startswith(("projection", "shift"))}
    assert told == pytest.approx(scalars, rel=2e-4) and len(told) == 4
    factor = {"forget": 1.0, "retain": 3.0, "anchor": 1.5, "perp": 2.0, "kl": 0.5 * 2, "ce": 0.7, "nll": 0.9}
    total = sum(factor[name] * value for name, value in expected.items())
    assert float(found.total().detach()) == pytest.approx(total, rel=2e-4)


def test_more_padding_changes_nothing(moved):
    objective, ctx = moved.objective, moved.objective.ctx
    ctx.step_index = 0
    batch = {role: ctx.draw(role, 0) for role in ("forget", "retain", "reply")}
    wide = {
        role: replace(
            b, **{n: functional.pad(getattr(b, n), (0, 9)) for n in ("input_ids", "attention_mask", "in_text")}
        )
        for role, b in batch.items()
    }
    narrow = {n: float(p.detach()) for n, p in objective.loss(batch).parts.items()}
    ctx.views.clear()
    assert {n: float(p.detach()) for n, p in objective.loss(wide).parts.items()} == pytest.approx(narrow, abs=1e-5)
