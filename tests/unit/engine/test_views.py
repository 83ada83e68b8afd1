"""The two views against two full models with hooks: the same numbers, on every architecture."""

from __future__ import annotations

import copy

import pytest
import torch

from unlearn_suite.engine.batch import Batch
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.engine.views import ModelViews
from unlearn_suite.testing.tiny import ARCHITECTURES, tiny_model


def full_run(model, path: str, batch: Batch):
    """Block outputs, logits and label log-probs of a plain forward pass."""
    outputs: dict[int, torch.Tensor] = {}
    hooks = [
        block.register_forward_hook(
            lambda _m, _i, out, k=k: outputs.__setitem__(k, out[0] if isinstance(out, tuple) else out)
        )
        for k, block in enumerate(model.get_submodule(path))
    ]
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    chosen = logits[:, :-1].double().log_softmax(-1).gather(2, batch.input_ids[:, 1:, None])[..., 0]
    return outputs, logits, torch.nn.functional.pad(chosen, (1, 0))


def perturbed(arch: str):
    """A model whose trainable tensors have moved, its views, and an untouched copy of the original."""
    model = tiny_model(arch)
    original = copy.deepcopy(model)
    shape = ModelShape.of(model)
    views = ModelViews(model, shape, shape.select("mlp_out", [1, 2]))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in views.trainable.values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model, original, shape, views


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("view_name", ["policy", "reference"])
def test_views_equal_two_full_models(arch, view_name, make_batch):
    model, original, shape, views = perturbed(arch)
    view = getattr(views, view_name)
    batch = make_batch([5, 12, 9], seed=3)
    outputs, logits, chosen = full_run(model if view_name == "policy" else original, shape.blocks_path, batch)
    real = batch.attention_mask.bool()
    for blocks in ([2], [0, 3], [1]):  # below, inside and above what is trained, in no order
        for block, h in view.hidden(batch, blocks).items():
            torch.testing.assert_close(h[real], outputs[block][real], rtol=0, atol=0)
    torch.testing.assert_close(view.logits(batch)[real], logits[real], rtol=0, atol=0)
    mask = batch.mask("content")
    torch.testing.assert_close(view.token_logprobs(batch)[mask].double(), chosen[mask], rtol=1e-5, atol=1e-5)
    assert not view.token_logprobs(batch)[~mask].any()


@pytest.mark.parametrize("order", [("policy", "reference"), ("reference", "policy")])
def test_the_views_do_not_disturb_each_other(order, make_batch):
    model, original, shape, views = perturbed("llama")
    batch = make_batch([7, 4], seed=5)
    seen = {name: getattr(views, name).hidden(batch, [3])[3] for name in order}
    real = batch.attention_mask.bool()
    for name, full in (("policy", model), ("reference", original)):
        expected = full_run(full, shape.blocks_path, batch)[0][3]
        assert torch.equal(seen[name][real], expected[real])
    assert not torch.equal(seen["policy"], seen["reference"])


def test_nothing_is_run_twice_or_too_deep(make_batch):
    _, _, _, views = perturbed("llama")
    batch = make_batch([6, 6], seed=1)
    views.policy.hidden(batch, [2])
    views.reference.hidden(batch, [2])
    assert views.replay.block_calls == 1 + 2 + 2  # the shared block 0 once, then blocks 1 and 2 for each view
    views.policy.hidden(batch, [2])
    assert views.replay.block_calls == 5
    views.policy.hidden(batch, [3])  # goes on from block 2
    assert views.replay.block_calls == 6


def test_a_changed_weight_is_seen(make_batch):
    _, _, _, views = perturbed("qwen2")
    batch = make_batch([6], seed=1)
    before = views.policy.hidden(batch, [3])[3].detach()
    reference = views.reference.hidden(batch, [3])[3]
    with torch.no_grad():
        next(iter(views.trainable.values())).mul_(2.0)
    assert not torch.equal(views.policy.hidden(batch, [3])[3], before)
    assert torch.equal(views.reference.hidden(batch, [3])[3], reference)


def test_logprob_gradients_equal_the_plain_computation(make_batch):
    model, _, _, views = perturbed("gemma2")
    batch = make_batch([9, 5, 7], seed=2)
    parameters = list(views.trainable.values())
    ours = torch.autograd.grad(-batch.mean(views.policy.token_logprobs(batch)), parameters)
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
    chosen = logits[:, :-1].log_softmax(-1).gather(2, batch.input_ids[:, 1:, None])[..., 0]
    plain = torch.autograd.grad(-chosen[batch.mask("content")[:, 1:]].mean(), parameters)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_only_trainable_tensors_receive_gradients(make_batch):
    model, _, _, views = perturbed("gpt2")
    batch = make_batch([6, 8], seed=4)
    views.policy.hidden(batch, [3])[3].sum().backward()
    with_grad = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_grad == set(views.trainable)


def test_extra_padding_changes_nothing(make_batch):
    _, _, _, views = perturbed("llama")
    batch = make_batch([5, 5], seed=6)
    padded = make_batch([5, 5, 14], seed=6)
    narrow = views.policy.hidden(batch, [3])[3]
    wide = views.policy.hidden(padded, [3])[3]
    torch.testing.assert_close(wide[:2, :5], narrow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arch", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("block", [0, 1, 3])
def test_with_hidden_goes_on_from_what_is_given(arch, block, make_batch):
    model, _, shape, views = perturbed(arch)
    batch = make_batch([5, 9], seed=4)
    push = torch.linspace(-1, 1, shape.hidden_size)
    hook = model.get_submodule(shape.blocks_path)[block].register_forward_hook(
        lambda _m, _i, out: (out[0] + push, *out[1:]) if isinstance(out, tuple) else out + push
    )
    outputs, _, chosen = full_run(model, shape.blocks_path, batch)
    hook.remove()
    delta = push.clone().requires_grad_()
    h = views.policy.hidden(batch, [block])[block] + delta
    twin = views.policy.with_hidden(batch, block, h)
    mask = batch.mask("content")
    logprobs = views.policy.token_logprobs(twin)
    torch.testing.assert_close(logprobs[mask].double(), chosen[mask], rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(batch.mean(logprobs), [delta])
    assert gradient.abs().sum() > 0
    for later in range(block + 1, shape.n_blocks):
        found = views.policy.hidden(twin, [later])[later]
        torch.testing.assert_close(found[mask], outputs[later][mask], rtol=1e-5, atol=1e-5)


def test_with_hidden_below_the_trained_blocks(make_batch):
    model = tiny_model("llama")
    shape = ModelShape.of(model)
    policy = ModelViews(model, shape, shape.select("mlp_out", [3])).policy
    batch = make_batch([5, 9], seed=4)
    h = (policy.hidden(batch, [1])[1] + 1.0).detach().requires_grad_()
    twin = policy.with_hidden(batch, 1, h)
    found = policy.hidden(twin, [0, 1, 2, 3])
    before = policy.hidden(batch, [0, 2])
    assert torch.equal(found[1], h) and torch.equal(found[0], before[0])
    assert not torch.allclose(found[2], before[2], atol=1e-2)
    assert torch.autograd.grad(found[2].sum(), [h])[0].abs().sum() > 0


def test_per_token_hands_over_what_is_given_row_by_row(make_batch, monkeypatch):
    from unlearn_suite.engine import views as module

    monkeypatch.setattr(module, "_HEAD_ROWS", 3)
    *_, views = perturbed("llama")
    batch = make_batch([5, 9], seed=4)
    extra = torch.arange(batch.input_ids.numel() * 2).reshape(*batch.input_ids.shape, 2).float()
    found = views.policy.per_token(batch, lambda z, y, g: g.sum(1) + 0 * z.sum(1), given=[extra])
    mask = batch.mask("content")
    torch.testing.assert_close(found[mask], extra.sum(-1)[mask])
