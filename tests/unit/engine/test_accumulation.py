"""Micro-batches: the gradient is that of the whole batch, with prompts, texts of unlike length and unequal roles."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import softplus

from unlearn_suite import Config, Loss, LossObjective, Requirements, losses
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.specs import Example, Train
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

TEXTS = ["cats", "a dog ran home", "it rained all day on the hill", "we ate", "noon", "birds sing early in may", "ice"]


class Ratios(LossObjective[Config]):
    """Means over content, over responses and over examples, of roles of unequal size."""

    sizes = (("forget", 7), ("retain", 3))

    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1, 2]), reads=2, logits=True)

    def step(self, batch):
        drawn = {role: self.ctx.draw(role, self.ctx.step_index, size) for role, size in self.sizes}
        scalars = self.ctx.backward(self.loss, drawn)
        self.gradient = {name: p.grad.clone() for name, p in self.ctx.trainable.items()}
        return {**scalars, **self.ctx.update()}

    def loss(self, batch):
        f, r, policy, reference = batch["forget"], batch["retain"], self.ctx.policy, self.ctx.reference
        ratio = policy.token_logprobs(f, "response") - reference.token_logprobs(f, "response")
        h, ref = (v.hidden(r, [2])[2] for v in (policy, reference))
        return Loss(
            {
                "ratio": f.mean_examples(softplus(f.sum_per_example(ratio))),
                "answers": f.mean(policy.token_logprobs(f, "response"), "response"),
                "keep": r.mean(losses.squared_error(h + 1.0, ref)),
                "kl": r.mean(reference.per_token(r, lambda p, _, q: losses.kl(p, q), "response", policy), "response"),
            }
        )


def run(folder, services, micro, **options):
    examples = {
        "forget": [Example(f"f{i}", t, prompt="why? " * (i % 3)) for i, t in enumerate(TEXTS)],
        "retain": [Example(f"r{i}", t[::-1], prompt="so " if i % 2 else "") for i, t in enumerate(TEXTS)],
    }
    objective = Ratios(Config())
    seen = []
    train = Train(steps=1, lr=1e-2, batch=4, length=24, micro_batch=micro, clip=None, **options)
    job = StageJob(
        index=0,
        objective=objective,
        train=train,
        required_roles=("forget", "retain"),
        examples=examples,
        seed=2,
        artifacts=folder,
        checkpoints=folder,
        services=services,
        on_step=lambda step, scalars: seen.append(scalars),
    )
    run_stage(tiny_model("llama"), tiny_tokenizer(), job)
    return seen[0], objective.gradient


@pytest.mark.parametrize("micro", [1, 2, 3, 5])
def test_the_gradient_does_not_depend_on_the_cut(micro, tmp_path, services):
    whole, gradient = run(tmp_path / "whole", services, None)
    cut, summed = run(tmp_path / "cut", services, micro)
    assert all(cut[name] == pytest.approx(value, rel=1e-5, abs=1e-7) for name, value in whole.items())
    for name, g in gradient.items():
        assert float(g.norm()) > 1e-3
        torch.testing.assert_close(summed[name], g, rtol=1e-4, atol=1e-6 * float(g.norm()))
