"""A forget loss and a retain loss over next-token distributions: what most baselines are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from unlearn_suite import Batch, Loss, LossObjective, ModelShape, PlanError, Requirements, StageContext, losses

from ..cards.common import Retains, Trains
from .everywhere import everywhere, piece_mean
from .trained import chosen

T = TypeVar("T", bound=Trains)
R = TypeVar("R", bound=Retains)


class TokenObjective(LossObjective[T]):
    """Reads token distributions; trains what the options say. `reads_base`: whether the base model is read."""

    reads_base = False

    def requirements(self, shape: ModelShape) -> Requirements:
        return Requirements(chosen(shape, self.config), reads=-1, logits=True, reference=self.reads_base)


class ForgetRetain(TokenObjective[R]):
    """L = gamma `forget` + alpha L_retain."""

    def forget(self, batch: Batch) -> Tensor:
        """Scalar forget loss."""
        raise NotImplementedError

    def requirements(self, shape: ModelShape) -> Requirements:
        return Requirements(chosen(shape, self.config), reads=-1, logits=True, reference=self.compares())

    def compares(self) -> bool:
        """Whether the base model is read."""
        return self.reads_base or (self.config.retain == "kl" and self.config.alpha > 0)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        parts, weights = {"forget": self.forget(batch["forget"])}, {"forget": self.config.gamma}
        if self.config.alpha > 0:
            parts["retain"] = retain_loss(self.ctx, batch["retain"], self.config)
            weights["retain"] = self.config.alpha
        return Loss(parts, weights)


def refuse_stop(ctx: StageContext, name: str) -> None:
    """Raise `PlanError` for a guard that could end a stage before its weights are what they lead to."""
    if ctx.train.stop is not None:
        raise PlanError(
            f"{name} reinforces what it will forget until its last steps, so `stop` has nothing to keep",
            code="no-guard",
            hint="leave `stop` out of the stage",
        )


def retain_loss(ctx: StageContext, batch: Batch, config: Retains) -> Tensor:
    """Mean next-token loss, or mean KL(base || policy), over response tokens."""
    if config.retain == "nll":
        return nll(ctx.policy, batch)
    if config.legacy:
        whole = everywhere(batch)
        found = ctx.reference.per_token(whole, kl, against=ctx.policy)
        return piece_mean(found.sum(), batch.input_ids.numel(), batch)
    return batch.mean(ctx.reference.per_token(batch, kl, "response", against=ctx.policy), "response")


def nll(view: Any, batch: Batch) -> Tensor:
    """Mean next-token loss over response tokens, nats."""
    return -batch.mean(view.token_logprobs(batch, "response"), "response")


def kl(base: Tensor, _: Tensor, policy: Tensor) -> Tensor:
    """[N]: KL(base || policy)."""
    return losses.kl(base, policy)
