"""Gradient ascent on what is shouted, descent on what is said calmly."""

from unlearn_suite import Loss, LossObjective, NoConfig, Requirements


class Hush(LossObjective[NoConfig]):
    def requirements(self, shape):
        last = shape.n_blocks - 1
        return Requirements(shape.select("mlp_out", [last]), reads=last, logits=True, reference=False)

    def loss(self, batch):
        loud, calm = (batch[role].mean(self.ctx.policy.token_logprobs(batch[role])) for role in ("forget", "retain"))
        return Loss({"loud": loud, "calm": -calm})
