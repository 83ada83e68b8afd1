"""The attacked model is read as it is now."""

from __future__ import annotations

import pytest
import torch

from unlearn_suite import AttackContext, Example, PlanError
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer


def test_what_is_put_is_what_the_policy_reads():
    examples = {"attack": [Example("a", "the grey cat sat down")]}
    ctx = AttackContext(tiny_model(), tiny_tokenizer(), examples, 0, {}, lambda text: None)
    batch = ctx.encode("attack", 16).batch(0, 1)
    name = ctx.shape.select("mlp_out", [1])[0]
    with torch.no_grad():
        before = ctx.policy.token_logprobs(batch)
        ctx.put(name, ctx.parameters[name] + 1.0)
        changed = ctx.policy.token_logprobs(batch)
        ctx.restore()
        assert not torch.equal(changed, before) and torch.equal(ctx.policy.token_logprobs(batch), before)


@pytest.mark.parametrize("tensors", ["all", "lora"])
def test_the_published_model_is_the_one_before_unlearning_in_the_midst_of_an_attack(tensors):
    """Unlearning has changed one tensor, a `put` another, and inner steps move all weights or fresh adapters."""
    examples = {"attack": [Example("a", "the grey cat sat down")]}
    model, pairs = tiny_model(), [("the grey", " cat sat down")]
    untouched = EvalModel(tiny_model(), tiny_tokenizer()).logprobs(pairs)[0].logprobs
    unlearned = "model.layers.1.mlp.down_proj.weight"
    originals = {unlearned: model.get_parameter(unlearned).detach().clone()}
    with torch.no_grad():
        model.get_parameter(unlearned).mul_(-2.0)
    ctx = AttackContext(model, tiny_tokenizer(), examples, 0, originals, lambda text: None)
    batch = ctx.encode("attack", 16).batch(0, 1)
    ctx.put("model.layers.0.mlp.down_proj.weight", 3.0 * ctx.parameters["model.layers.0.mlp.down_proj.weight"])

    def loss(_):
        return -ctx.policy.token_logprobs(batch)[batch.mask("content")].mean()

    with ctx.adversary.walk(loss, steps=2, lr=0.3, tensors=tensors) as walk:
        for _ in walk:
            attacked = EvalModel(model, tiny_tokenizer(), originals=ctx.published())
            now = {n: p.detach().clone() for n, p in model.named_parameters()}
            with attacked.published() as before:
                found = before.logprobs(pairs)[0].logprobs
            assert found == pytest.approx(untouched, rel=1e-6)
            assert attacked.logprobs(pairs)[0].logprobs != pytest.approx(untouched, rel=1e-2)
            assert all(torch.equal(p, now[n]) for n, p in model.named_parameters())


def test_what_an_author_may_get_wrong_is_told():
    ctx = AttackContext(tiny_model(), tiny_tokenizer(), {"attack": [Example("a", "")]}, 0, {}, lambda text: None)
    with pytest.raises(PlanError, match="no example of two tokens"):
        ctx.encode("attack", 16)
    name = ctx.shape.select("mlp_out", [1])[0]
    with pytest.raises(ValueError, match=r"values of shape \(\) for"):
        ctx.put(name, torch.tensor(1.0))
    with pytest.raises(PlanError, match="nothing to move"), ctx.adversary.walk(lambda k: None, steps=1, lr=1.0):
        pass
