"""LEACE: erase in closed form what tells forget text from retain text, and write the eraser into the weights.

Belrose et al., "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023, arXiv:2306.03819, section 4:

    r(x) = x - W^+ P W (x - mu),  W = (S_xx^(1/2))^+,  P projects onto the columns of W S_xz

With one bit z (forget or retain) S_xz is parallel to d = mu_forget - mu_retain, and the matrix is

    I - d d^T S_xx^+ / (d^T S_xx^+ d),

the smallest change of x, by the metric of S_xx, after which no linear classifier does better than a constant.

Simplified: the paper edits activations. Here the matrices that write to the residual stream up to the block are
multiplied by the eraser, so what the token embedding and biases bring is not erased, and the constant for mu is left
out. Each step reads one batch into the sums; the edit is made once, after the last one.
"""

import torch
from pydantic import Field

from unlearn_suite import Config, Objective, ObjectiveSpec, PlanError, Requirements, hookimpl

ROLES = ("forget", "retain")


class Options(Config):
    """Options of `leace`."""

    block: int | None = Field(None, ge=0)
    """block whose output the eraser is fitted to, 0-based (none = the middle one)"""


class Leace(Objective[Options]):
    def requirements(self, shape):
        if shape.model_type == "gpt2":
            raise PlanError("leace cannot edit GPT-2, whose matrices are transposed", code="leace-model")
        self.block = shape.n_blocks // 2 if self.config.block is None else shape.check_block(self.config.block)
        blocks = range(self.block + 1)
        return Requirements(shape.select("attn_out", blocks) + shape.select("mlp_out", blocks), reads=self.block)

    def setup(self, ctx):
        super().setup(ctx)
        if ctx.train.lora:
            raise PlanError("leace edits the matrices themselves", code="leace-lora", hint="leave `lora` out")
        D = ctx.shape.hidden_size
        self.count, self.sum = torch.zeros(2, dtype=torch.float64), torch.zeros(2, D, dtype=torch.float64)
        self.square = torch.zeros(D, D, dtype=torch.float64)

    def step(self, batch):
        for i, role in enumerate(ROLES):
            h_btd = self.ctx.reference.hidden(batch[role], [self.block])[self.block]
            x_nd = h_btd[batch[role].mask("content")].double().cpu()
            self.count[i] += len(x_nd)
            self.sum[i] += x_nd.sum(0)
            self.square += x_nd.T @ x_nd
        return {"loss": float(self._difference().norm())}  # what there is to erase

    def _difference(self):
        """[D]: mu_forget - mu_retain."""
        mean = self.sum / self.count[:, None]
        return mean[0] - mean[1]

    def eraser(self):
        """[D, D] float64."""
        d, mean = self._difference(), self.sum.sum(0) / self.count.sum()
        covariance = self.square / self.count.sum() - torch.outer(mean, mean)
        reader = torch.linalg.pinv(covariance, rtol=1e-10, hermitian=True) @ d
        return torch.eye(len(d), dtype=d.dtype) - torch.outer(d, reader) / (d @ reader)

    @torch.no_grad()
    def finish(self):
        if not self.count.all():
            return {}
        eraser, removed = self.eraser().to(self.ctx.device), 0.0
        for p in self.ctx.trainable.values():  # [D, inputs]
            edited = (eraser @ p.double()).to(p.dtype)
            removed += float((edited - p).square().sum())
            p.copy_(edited)
        return {"removed_norm": removed**0.5}

    def state_dict(self):
        return {"count": self.count, "sum": self.sum, "square": self.square}

    def load_state_dict(self, state):
        self.count, self.sum, self.square = (state[name].cpu() for name in ("count", "sum", "square"))


@hookimpl
def register_objectives(register):
    register(
        ObjectiveSpec(
            name="leace",
            summary="Erase the difference of forget and retain text from the weights, in closed form",
            load=f"{__name__}:Leace",
            config=Options,
            paper="arXiv:2306.03819",
            fidelity="simplified",
        )
    )
