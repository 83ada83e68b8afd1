"""The shared mathematics against float64, and `View.per_token`: the whole logits' values and gradients, in pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, softmax

from unlearn_suite.engine import losses, views
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.engine.views import ModelViews
from unlearn_suite.testing.tiny import tiny_model

POSITIONS, WIDTH = 7, 11


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_function_equals_its_formula_in_float64(dtype):
    h, ref = (random(POSITIONS, WIDTH, seed=s, dtype=dtype) for s in (0, 1))
    labels = torch.arange(POSITIONS) % WIDTH
    x, y = h.double().numpy(), ref.double().numpy()
    length_x, length_y = np.linalg.norm(x, axis=-1), np.linalg.norm(y, axis=-1)
    log_x, log_y = log_softmax(x, axis=-1), log_softmax(y, axis=-1)
    expected = {
        "cosine": (losses.cosine(h, ref), (x * y).sum(-1) / length_x / length_y),
        "relative": (losses.relative_error(h, ref), ((x - y) ** 2).sum(-1) / length_y**2),
        "squared": (losses.squared_error(h, ref), ((x - y) ** 2).sum(-1) / WIDTH),
        "ratio": (losses.norm_ratio(h, ref), length_x / length_y),
        "label": (losses.label_logprobs(h, labels), log_x[np.arange(POSITIONS), labels.numpy()]),
        "kl": (losses.kl(h, ref), (softmax(x, axis=-1) * (log_x - log_y)).sum(-1)),
        "entropy": (losses.entropy(h), -(softmax(x, axis=-1) * log_x).sum(-1)),
        "distance": (losses.distance(h, ref), np.linalg.norm(x - y, axis=-1)),
        "soft": (losses.soft_cross_entropy(h, ref), -(softmax(y, axis=-1) * log_x).sum(-1)),
        "jensen-shannon": (losses.jensen_shannon(h, ref), jensenshannon(np.exp(log_x), np.exp(log_y), axis=-1) ** 2),
        "preference": (losses.preference(h, 0.3), 2 / 0.3 * np.log1p(np.exp(-0.3 * x))),
    }
    for name, (ours, formula) in expected.items():
        assert ours.dtype == torch.float32, name
        np.testing.assert_allclose(ours.numpy(), formula, rtol=2e-5, atol=2e-6, err_msg=name)


def logits_and_labels(model, batch):
    """[N, V] float64 logits and [N] labels of the content tokens, the model run whole."""
    out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
    mask = batch.mask("content")[:, 1:]
    return out[:, :-1][mask].double(), batch.input_ids[:, 1:][mask]


@pytest.mark.parametrize("arch", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("rows", [3, 1024])
def test_per_token_has_the_values_and_gradients_of_whole_logits(arch, rows, make_batch, monkeypatch):
    monkeypatch.setattr(views, "_HEAD_ROWS", rows)
    model, twin = tiny_model(arch), tiny_model(arch)
    shape = ModelShape.of(model)
    names = shape.select("mlp_out", [1])
    made = ModelViews(model, shape, names)
    batch = make_batch([7, 3, 9], 5)
    with torch.no_grad():
        for m in (model, twin):
            dict(m.named_parameters())[names[0]].mul_(1.1)

    def of(logits, labels, other):
        return losses.kl(other, logits) - losses.label_logprobs(logits, labels)

    values = made.policy.per_token(batch, of, against=made.reference)
    (gradient,) = torch.autograd.grad(batch.mean(values), list(made.trainable.values()))

    twin.double()
    plain, labels = logits_and_labels(twin, batch)
    with torch.no_grad():
        reference, _ = logits_and_labels(tiny_model(arch).double(), batch)
    log_p, log_q = reference.log_softmax(-1), plain.log_softmax(-1)
    flat = (log_p.exp() * (log_p - log_q)).sum(-1) - log_q.gather(1, labels[:, None])[:, 0]
    (expected,) = torch.autograd.grad(flat.mean(), [dict(twin.named_parameters())[names[0]]])
    torch.testing.assert_close(values[batch.mask("content")].double(), flat, rtol=1e-4, atol=1e-5)
    assert not values[~batch.mask("content")].any()
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-5)
