"""The objective: J at block l*, the meta-gradients, and the weight a that may adapt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearn_suite import Batch, Loss, LossObjective, ModelShape, PlanError, Requirements, Scalars, StageContext

from .config import CosineRmuConfig
from .meta import MetaGradient
from .targets import TopicTargets, make_targets
from .terms import Terms
from .weight import RetainWeight

DEPTH = 0.22


class CosineRmu(LossObjective[CosineRmuConfig]):
    """Forget and retain means are over content tokens; see docs/explanation/cosine-rmu.md."""

    def requirements(self, shape: ModelShape) -> Requirements:
        block = self._block(shape)
        blocks = range(max(0, block - self.config.width + 1), block + 1)
        trainable = shape.select("mlp_out", blocks)
        if self.config.post_norm:
            gains = tuple(norms[0] for norms in map(shape.post_norms, blocks) if norms)
            if not gains:
                raise PlanError(
                    f"`post_norm` asks for the norm after the MLP, and this model ({shape.model_type}) has none",
                    code="no-such-tensor",
                    hint="leave `post_norm` out: it is for OLMo-2, Gemma 2 and Gemma 3",
                )
            trainable += gains
        return Requirements(trainable=trainable, reads=block, logits=self.config.reads_logits)

    def _block(self, shape: ModelShape) -> int:
        block = self.config.block
        if block is None:
            block = min(round(DEPTH * shape.n_blocks), shape.n_blocks - 2)
        return shape.check_block(max(block, 0))

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        if self.config.forget_form == "diverse":
            ctx.require_whole_batch("forget_form: diverse compares the texts of a batch", gathers=True)
        block = self._block(ctx.shape)
        self.targets = make_targets(ctx, self.config, block)
        self.terms = Terms(ctx, self.config, block, self.targets)
        self.weight = RetainWeight(ctx, self.config, self.terms)  # before `meta`, which splits what it leaves
        self.meta = MetaGradient(ctx, self.config, self.terms)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        f, r = batch["forget"], batch["retain"]
        parts = {"forget": self.terms.forget(f), "retain": self.terms.retain(r), "norm": self.terms.norm(f)}
        guard = 0.0 if self.config.forget_form == "mse" else self.config.norm_guard
        weights = {"retain": self.weight.value, "norm": guard}
        if self.config.kl_weight > 0 and self.ctx.step_index % self.config.kl_every == 0:
            parts["retain_kl"] = self.terms.kl(r)
            weights["retain_kl"] = self.config.kl_weight
        return Loss(parts=parts, weights=weights, scalars=self.terms.scalars(f, r))

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        scalars = self.ctx.backward(self.loss, batch)
        scalars |= self.meta.add(batch, self.weight.value)
        scalars |= self.weight.adapt(batch, scalars["retain"])
        return {**scalars, **self.ctx.update()}

    def finish(self) -> Scalars:
        self.meta.bite.close()
        if isinstance(self.targets, TopicTargets) and self.ctx.processes.lead:
            self.targets.save(self.ctx.artifacts / "directions.safetensors")
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "targets": self.targets.state_dict(),
            "meta": self.meta.state_dict(),
            "retain_weight": self.weight.value,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.targets.load_state_dict(state["targets"])
        self.meta.load_state_dict(state["meta"])
        self.weight.value = float(state["retain_weight"])
