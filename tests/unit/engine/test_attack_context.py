"""The attacked model is read as it is now."""

from __future__ import annotations

import torch

from unlearn_suite import AttackContext, Example
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
