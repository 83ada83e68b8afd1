"""Edits in closed form, against their equations written out on the model itself in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unlearn_suite.testing.tiny import tiny_model


def test_abliteration_and_gloss_remove_what_their_equations_say(run, plain, tmp_path):
    p = plain(plain.VARIED)
    model, *_ = run("abliteration", {"block": 1, "max_kl": None}, tmp_path / "a", given=plain.VARIED, **plain.WHOLE)
    means = [
        torch.cat([p.hidden(ids)[1][start:] for ids, start in p.rows[role]]).mean(0) for role in ("forget", "retain")
    ]
    r = (means[0] - means[1]) / (means[0] - means[1]).norm()
    name = "model.layers.3.mlp.down_proj.weight"
    expected = p.weights[name] - torch.outer(r, r @ p.weights[name])
    torch.testing.assert_close(dict(model.named_parameters())[name].double(), expected.detach(), rtol=1e-4, atol=1e-5)

    options = {"rank": 2, "per_block": 2, "max_kl": None, "strength": 0.5}
    model, *_ = run("gloss", options, tmp_path / "g", given=plain.VARIED, **plain.WHOLE)
    stacked = []
    for layer in p.model.model.layers:
        pools = {role: torch.stack([_mlp(p, layer, *row) for row in p.rows[role]]) for role in ("forget", "retain")}
        stacked.append(torch.linalg.svd(pools["forget"] - pools["retain"].mean(0)).Vh[:2])
    v = torch.linalg.svd(torch.cat(stacked)).Vh[:2].T
    expected = p.weights[name] - 0.5 * v @ (v.T @ p.weights[name])
    torch.testing.assert_close(dict(model.named_parameters())[name].double(), expected.detach(), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def _mlp(p: Any, layer: Any, ids: Tensor, start: int) -> Tensor:
    """[D]: an MLP's output, averaged over the response."""
    found: list[Tensor] = []
    hook = layer.mlp.register_forward_hook(lambda m, i, out: found.append(out[0, start:].mean(0)))
    p.model(ids)
    hook.remove()
    return found[0]


def test_iti_shifts_by_its_equation(run, plain, tmp_path):
    """One head of sixteen, the one that orders held-out pairs best."""
    model, _, result = run(
        "iti", {"heads": 1 / 16, "alpha": 3.0}, tmp_path, arch="gpt2", given=plain.VARIED, **plain.WHOLE
    )
    p = plain(plain.VARIED, "gpt2")
    best = (-1.0, "", torch.zeros(0))
    for n, block in enumerate(p.model.transformer.h):
        heads = {role: [_heads(p, block, *row) for row in p.rows[role]] for role in ("forget", "retain")}
        for h in range(4):
            f, r = (torch.stack([row[h] for row in heads[role]]) for role in ("forget", "retain"))
            half = r[::2].mean(0) - f[::2].mean(0)
            ordered = (r[1::2] @ half)[None] > (f[1::2] @ half)[:, None]
            share = float(ordered.double().mean())
            if share > best[0]:
                v = (r.mean(0) - f.mean(0)) / (r.mean(0) - f.mean(0)).norm()
                sigma = (torch.cat([f, r]) @ v).std()
                columns = block.attn.c_proj.weight[8 * h : 8 * h + 8]  # [in, out]
                best = (share, f"transformer.h.{n}.attn.c_proj.bias", (3.0 * sigma * v) @ columns)
    before = dict(tiny_model("gpt2").named_parameters())
    for name in result.original:
        change = (dict(model.named_parameters())[name] - before[name]).double()
        expected = best[2] if name == best[1] else torch.zeros_like(change)
        torch.testing.assert_close(change, expected.detach(), rtol=1e-3, atol=1e-5)


@torch.no_grad()
def _heads(p: Any, block: Any, ids: Tensor, start: int) -> Tensor:
    """[heads, width]: what goes into the output projection, averaged over the response."""
    found: list[Tensor] = []
    hook = block.attn.c_proj.register_forward_hook(lambda m, i, out: found.append(i[0][0, start:].mean(0)))
    p.model(ids)
    hook.remove()
    return found[0].unflatten(0, (4, -1))
