"""SalUn: random labels, and only the weights that matter for the text to forget are moved.

Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency", ICLR 2024, arXiv:2310.12508.

    m = 1(|grad_theta CE(theta_0; D_f)| >= gamma), gamma = the median
    theta = theta_0 + m * delta, delta minimises E_f[CE(theta; x, y')] + alpha E_r[CE(theta; x, y)], y' != y random

Simplified: y' is one wrong token for each token of the vocabulary, drawn once, not one for each text. The paper is
about image models; labels are the next tokens here. Leave weight decay at 0: it would move what is masked.
"""

import torch
from pydantic import Field

from unlearn_suite import Config, Loss, LossObjective, ObjectiveSpec, Requirements, hookimpl, losses


class Options(Config):
    """Options of `salun`."""

    keep: float = Field(0.5, gt=0, le=1)
    """share of the weights that are trained: those with the largest gradients"""
    alpha: float = Field(1.0, ge=0)
    """weight of the next-token loss on retain text"""
    tensors: str = ".*"
    """regular expression for the full names of the tensors to train"""


class SalUn(LossObjective[Options]):
    def requirements(self, shape):
        return Requirements(shape.match(self.config.tensors), reads=-1, logits=True, reference=False)

    def setup(self, ctx):
        super().setup(ctx)
        ctx.require_one_device("gamma ranks all weights together")
        tokens = torch.arange(ctx.shape.vocab_size)
        shift = torch.randint(1, len(tokens), tokens.shape, generator=ctx.generator)
        self.wrong = ((tokens + shift) % len(tokens)).to(ctx.device)  # [V]: y' of each y
        for chunk in ctx.roles["forget"].chunks(ctx.train.batch):
            ctx.backward(self._logprob, {"forget": chunk.to(ctx.device)})
        size = {name: p.grad.abs() for name, p in ctx.trainable.items()}
        everything = torch.cat([s.flatten() for s in size.values()])
        gamma = everything.kthvalue(max(1, round((1 - self.config.keep) * len(everything)))).values
        self.mask = {name: s >= gamma for name, s in size.items()}
        for p in ctx.trainable.values():
            p.grad = None

    def _logprob(self, batch):
        """Summed over tokens, so that the size of the chunks does not matter."""
        forget = batch["forget"]
        total = forget.sum_per_example(self.ctx.policy.token_logprobs(forget, "response")).sum()
        return Loss({"logprob": total})

    def loss(self, batch):
        forget, retain = batch["forget"], batch["retain"]
        wrong = self.ctx.policy.per_token(forget, lambda z, y: losses.label_logprobs(z, self.wrong[y]), "response")
        right = self.ctx.policy.token_logprobs(retain, "response")
        parts = {"forget": -forget.mean(wrong, "response"), "retain": -retain.mean(right, "response")}
        return Loss(parts, {"retain": self.config.alpha})

    def step(self, batch):
        scalars = self.ctx.backward(self.loss, batch)
        for name, p in self.ctx.trainable.items():
            p.grad.mul_(self.mask[name])
        return {**scalars, **self.ctx.update()}


@hookimpl
def register_objectives(register):
    register(
        ObjectiveSpec(
            name="salun",
            summary="Random labels on the salient half of the weights",
            load=f"{__name__}:SalUn",
            config=Options,
            paper="arXiv:2310.12508",
            fidelity="simplified",
        )
    )
