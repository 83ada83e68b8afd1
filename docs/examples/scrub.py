"""SCRUB: a student that leaves its teacher on the text to forget and obeys it elsewhere.

Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023, arXiv:2302.09880.

    min_w  alpha E_r[d(x; w)] + gamma E_r[CE(w; x, y)] - E_f[d(x; w)],   d(x; w) = KL(p(x; w_0) || p(x; w))

Simplified: the paper takes turns between epochs that raise the forget term and epochs that lower the retain terms; here
both are in each step. The paper ends with epochs of the second kind; so does this one, after `max_steps`.
"""

from pydantic import Field

from unlearn_suite import Config, Loss, LossObjective, ObjectiveSpec, Requirements, hookimpl, losses


class Options(Config):
    """Options of `scrub`."""

    alpha: float = Field(1.0, ge=0)
    """weight of KL(base model || model) on retain text"""
    gamma: float = Field(1.0, ge=0)
    """weight of the next-token loss on retain text"""
    max_steps: int | None = Field(None, ge=0)
    """steps that have the forget term (none = all)"""
    tensors: str = ".*"
    """regular expression for the full names of the tensors to train"""


class Scrub(LossObjective[Options]):
    def requirements(self, shape):
        return Requirements(shape.match(self.config.tensors), reads=-1, logits=True)

    def loss(self, batch):
        forget, retain = batch["forget"], batch["retain"]
        nll = -retain.mean(self.ctx.policy.token_logprobs(retain, "response"), "response")
        parts = {"stay": self._from_teacher(retain), "nll": nll}
        if self.config.max_steps is None or self.ctx.step_index < self.config.max_steps:
            parts["leave"] = -self._from_teacher(forget)
        return Loss(parts, {"stay": self.config.alpha, "nll": self.config.gamma})

    def _from_teacher(self, batch):
        kl_bt = self.ctx.reference.per_token(
            batch, lambda teacher, _, student: losses.kl(teacher, student), "response", against=self.ctx.policy
        )
        return batch.mean(kl_bt, "response")


@hookimpl
def register_objectives(register):
    register(
        ObjectiveSpec(
            name="scrub",
            summary="Leave the base model on forget text, stay with it on retain text",
            load=f"{__name__}:Scrub",
            config=Options,
            paper="arXiv:2302.09880",
            fidelity="simplified",
        )
    )
