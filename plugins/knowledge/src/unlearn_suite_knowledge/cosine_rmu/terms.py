"""The terms of J = L_F + a L_R + lambda_N L_N at block l*, as scalar means over a batch's content tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from unlearn_suite import Batch, StageContext, View, losses

from . import losses as own
from .config import CosineRmuConfig
from .targets import Targets


class Terms:
    """Reads the model through the stage's two views."""

    def __init__(self, ctx: StageContext, config: CosineRmuConfig, block: int, targets: Targets) -> None:
        self.ctx, self.config, self.block, self.targets = ctx, config, block, targets
        self._turns_away = config.forget_form in ("away", "both")

    def forget(self, batch: Batch) -> Tensor:
        """L_F in the form of `forget_form`."""
        h, form = self._h(self.ctx.policy, batch), self.config.forget_form
        if form == "away":
            return batch.mean(own.away(h, self._h(self.ctx.reference, batch)))
        u = self.targets(batch)
        if form == "abs":
            return batch.mean(own.across(h, u))
        if form == "mse":
            return batch.mean(own.onto(h, self._h(self.ctx.reference, batch), u, self.config.scale))
        value = own.toward(h, u, self.config.margin)
        if form == "both":
            value = value + own.AWAY_SHARE * own.away(h, self._h(self.ctx.reference, batch))
        mean = batch.mean(value)
        if form == "diverse":
            pools = self.ctx.rows(batch, own.pooled(h, batch.mask("content")))
            mean = mean + own.DIVERSITY * own.crowding(pools) / batch.shares
        return mean

    def retain(self, batch: Batch) -> Tensor:
        """L_R in the form of `retain_form`."""
        form = self.config.retain_form
        if form == "kl":
            return self.kl(batch)
        if form == "nll":
            return -batch.mean(self.ctx.policy.token_logprobs(batch))
        h, h_ref = (self._h(view, batch) for view in (self.ctx.policy, self.ctx.reference))
        if form == "mse_rmu":
            return batch.mean(losses.squared_error(h, h_ref))
        return batch.mean((losses.relative_error if form == "rel_mse" else own.turned)(h, h_ref))

    def kl(self, batch: Batch) -> Tensor:
        """Mean KL(reference || policy) of the next-token distributions, nats."""

        def kl_from_reference(logits: Tensor, _: Tensor, logits_ref: Tensor) -> Tensor:
            return losses.kl(logits_ref, logits)

        return batch.mean(self.ctx.policy.per_token(batch, kl_from_reference, against=self.ctx.reference))

    def norm(self, batch: Batch) -> Tensor:
        """L_N, the norm guard."""
        return batch.mean(own.norm_guard(*(self._h(view, batch) for view in (self.ctx.policy, self.ctx.reference))))

    def relearned(self, batch: Batch) -> Tensor:
        """`rep`: relative distance of the policy's activations to the base model's."""
        h, h_ref = (self._h(view, batch) for view in (self.ctx.policy, self.ctx.reference))
        return batch.mean(losses.relative_error(h, h_ref))

    @torch.no_grad()
    def scalars(self, forget: Batch, retain: Batch) -> dict[str, Tensor]:
        """Cosine with the target, and norm ratios."""
        h_f, h_r = (self._h(self.ctx.policy, b) for b in (forget, retain))
        ref_f, ref_r = (self._h(self.ctx.reference, b) for b in (forget, retain))
        found = {"cos_reference": forget.mean(losses.cosine(h_f, ref_f))} if self._turns_away else {}
        return found | {
            "cos_forget": forget.mean(losses.cosine(h_f, self.targets(forget))),
            "rho_forget": forget.mean(losses.norm_ratio(h_f, ref_f)),
            "rho_retain": retain.mean(losses.norm_ratio(h_r, ref_r)),
        }

    def _h(self, view: View, batch: Batch) -> Tensor:
        return view.hidden(batch, [self.block])[self.block]


def next_token_loss(view: View, batch: Batch) -> Tensor:
    """`ce`: mean next-token loss over the response."""
    return -batch.mean(view.token_logprobs(batch, "response"), "response")
