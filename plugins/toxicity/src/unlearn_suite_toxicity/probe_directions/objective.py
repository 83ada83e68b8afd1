"""The objective: a forget term on probe directions of several blocks, and what keeps everything else in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from unlearn_suite import (
    Batch,
    Example,
    Loss,
    LossObjective,
    ModelShape,
    PlanError,
    Requirements,
    Scalars,
    StageContext,
    TrainingError,
    losses,
)

from . import closed_form, corpus, record
from . import losses as own
from .config import ProbeDirectionsConfig
from .greedy import confined
from .steering import Steering

DEPTHS = (0.2, 1 / 3, 7 / 15, 0.6, 11 / 15)


class ProbeDirections(LossObjective[ProbeDirectionsConfig]):
    """The equations are in losses.py and docs/explanation/probe-directions.md."""

    def requirements(self, shape: ModelShape) -> Requirements:
        c, blocks = self.config, self._blocks(shape)
        trained = range(max(0, blocks[0] - 1), blocks[-1] + 1)
        trainable = shape.select("mlp_out", trained) + shape.select("attn_out", trained)
        return Requirements(
            trainable=trainable + _post_norms(shape, trained) if c.post_norm else trainable,
            reads=blocks[-1],
            logits=max(c.kl_weight, c.ce_weight, c.nll_weight) > 0 or c.needs_causal,
            head=True,
        )

    def _blocks(self, shape: ModelShape) -> list[int]:
        if self.config.blocks is not None:
            return sorted({shape.check_block(b) for b in self.config.blocks})
        return sorted({max(0, min(round(f * shape.n_blocks), shape.n_blocks - 2)) for f in DEPTHS})

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        if self.config.loss == "closed-form":
            closed_form.check(ctx)
        self.corpus = corpus.build(ctx, self.config)
        self.steering = Steering(ctx, self.config, self.corpus, self._blocks(ctx.shape))
        ctx.set_role("forget", self.corpus.toxic)
        if self.corpus.source == "on-policy":
            ctx.set_role("retain", self._retain_mix())
        elif self.config.test_share:
            retain = [e.example for e in ctx.roles["retain"].encoded]
            ctx.set_role("retain", corpus.outside_test(retain, self.config.test_share))
        if self.config.ce_weight:
            ctx.set_role("reply", self._replies())
        record.save(ctx, self.steering)

    def _retain_mix(self) -> list[Example]:
        """Benign continuations and the problem's retain text, from all its datasets, in the proportion of
        `general_share`."""
        own_text = self.corpus.benign
        general = [e.example for e in self.ctx.roles["retain"].encoded]
        share = self.config.general_share
        total = int(min(len(own_text) / max(1 - share, 1e-9), len(general) / max(share, 1e-9)))
        return corpus.some(own_text, round(total * (1 - share))) + corpus.some(general, round(total * share))

    def _replies(self) -> list[Example]:
        if not self.corpus.replies:
            raise TrainingError(
                "`ce_weight` needs benign text that continues a prompt, and there is none",
                code="no-replies",
                hint="give the problem a role `prompts`, or retain examples with a prompt",
            )
        return self.corpus.replies

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        every = self.config.refresh_every
        if every and self.ctx.step_index and self.ctx.step_index % every == 0:
            self.steering.refresh()
            record.save(self.ctx, self.steering)
        if self.config.ce_weight:
            batch = {**batch, "reply": self.ctx.draw("reply", self.ctx.step_index)}
        scalars = super().step(batch)
        if self.config.layer_weights == "learned":
            scalars |= {f"lambda_{b}": w for b, w in self.steering.weights.items()}
            self.steering.learned.update({b: scalars[f"forget_{b}"] for b in self.steering.blocks})
        return scalars

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        parts: dict[str, Tensor] = {}
        scalars: dict[str, Tensor] = {}
        if "forget" in batch:
            scalars = self._forget_parts(batch["forget"], parts)
        if "retain" in batch:
            scalars |= self._retain_parts(batch["retain"], parts)
        if "reply" in batch:
            reply = batch["reply"]
            parts["ce"] = -reply.mean(self.ctx.policy.token_logprobs(reply, "response"), "response")
        every = self.config.kl_every
        weights = {
            "retain": self.config.retain_weight,
            "anchor": self.config.anchor_weight,
            "perp": self.config.perp_weight,
            "kl": self.config.kl_weight * every,
            "ce": self.config.ce_weight,
            "nll": self.config.nll_weight,
        }
        ordered = {name: parts[name] for name in ("forget", *weights) if name in parts}
        return Loss(ordered, {name: w for name, w in weights.items() if name in parts}, scalars)

    def _forget_parts(self, f: Batch, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the terms on toxic text to `parts`; returns scalars to log."""
        blocks = self.steering.blocks
        h, ref = self.ctx.policy.hidden(f, blocks), self.ctx.reference.hidden(f, blocks)
        over: Literal["content", "response"] = "content" if self.config.positions == "all" else "response"
        with_perp = self.config.perp_weight > 0 and self.config.loss != "counterfactual"
        forget, perp, own_scalars = [], [], {}
        below = -1
        for block, share in self.steering.weights.items():
            d = self.steering.directions[block]
            value = f.mean(own.forget(self.config, h[block], ref[block], d), over)
            own_scalars[f"forget_{block}"] = value.detach()
            forget.append(self._for_block(share * value, below, block))
            if with_perp:
                edits = [a.edit for a in d.axes]
                moved = share * f.mean(own.orthogonal_error(h[block], ref[block], edits), over)
                perp.append(self._for_block(moved, below, block))
            below = block
        parts["forget"] = sum(forget[1:], forget[0])
        if perp:
            parts["perp"] = sum(perp[1:], perp[0])
        return {**own_scalars, **self._diagnostics(f, h, ref)}

    def _for_block(self, term: Tensor, below: int, block: int) -> Tensor:
        """`term`, or with `detach_below` one that trains the blocks from `below` (exclusive) to `block` only."""
        if not self.config.detach_below:
            return term
        inside = [
            p
            for name, p in self.ctx.trainable.items()
            if (at := self.ctx.shape.block_of(name)) is not None and below < at <= block
        ]
        return confined(term, inside)

    def _retain_parts(self, r: Batch, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the terms on retain text to `parts`; returns scalars to log."""
        blocks = self.steering.blocks
        h, ref = self.ctx.policy.hidden(r, blocks), self.ctx.reference.hidden(r, blocks)
        shares = self.steering.weights
        errors = [shares[b] * r.mean(losses.relative_error(h[b], ref[b])) for b in blocks]
        parts["retain"] = sum(errors[1:], errors[0])
        if self.config.anchor_weight:
            found = self.steering.directions
            moved = [shares[b] * r.mean(own.along_error(h[b], ref[b], found[b].axes)) for b in blocks]
            parts["anchor"] = sum(moved[1:], moved[0])
        if self.config.kl_weight and self.ctx.step_index % self.config.kl_every == 0:
            parts["kl"] = r.mean(self.ctx.reference.per_token(r, _kl, against=self.ctx.policy))
        if self.config.nll_weight:
            parts["nll"] = -r.mean(self.ctx.policy.token_logprobs(r))
        return self._shifts(r, h, ref)

    @torch.no_grad()
    def _shifts(self, r: Batch, h: dict[int, Tensor], ref: dict[int, Tensor]) -> dict[str, Tensor]:
        """How far kept text has moved along v, in units of the distance from benign to toxic."""
        axes = {block: d.axes[0] for block, d in self.steering.directions.items()}
        return {f"shift_{b}": r.mean((h[b].float() - ref[b].float()) @ a.read / a.scale) for b, a in axes.items()}

    @torch.no_grad()
    def _diagnostics(self, f: Batch, h: dict[int, Tensor], ref: dict[int, Tensor]) -> dict[str, Tensor]:
        last = self.steering.blocks[-1]
        scalars = {"rho_forget": f.mean(losses.norm_ratio(h[last], ref[last]))}
        for block, d in self.steering.directions.items():
            a = d.axes[0]
            scalars[f"projection_{block}"] = f.mean((h[block].float() @ a.read - a.mu0) / a.scale, "response")
        return scalars

    def state_dict(self) -> dict[str, Any]:
        return self.steering.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steering.load_state_dict(state)
        if self.steering.rounds:
            record.save(self.ctx, self.steering)

    def finish(self) -> Scalars:
        """AUROC of the old probes and of probes fitted afresh on the trained model, and the shift of benign text."""
        if self.config.loss == "closed-form":
            closed_form.apply(self.ctx, self.steering.directions, self.config.edit_strength)
        if self.config.layer_weights == "learned":
            record.save(self.ctx, self.steering)
        return record.evasion(self.ctx, self.steering)


def _post_norms(shape: ModelShape, blocks: Iterable[int]) -> tuple[str, ...]:
    """The gains after the MLP and the attention of each block. Raises `PlanError` where a block has not both."""
    pairs = [shape.post_norms(block) for block in blocks]
    if any(len(pair) < 2 for pair in pairs):
        raise PlanError(
            f"`post_norm` asks for the norms after attention and MLP, and this model ({shape.model_type}) has none",
            code="no-such-tensor",
            hint="leave `post_norm` out: it is for OLMo-2, Gemma 2 and Gemma 3",
        )
    return tuple(name for pair in pairs for name in pair)


def _kl(reference: Tensor, _: Tensor, policy: Tensor) -> Tensor:
    """[N]: KL(reference || policy) of the next-token distributions."""
    return losses.kl(reference, policy)
