"""ELM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unlearn_suite import Batch, Example, Loss, LossObjective, ModelShape, Requirements, StageContext, losses

from ..cards.elm import ElmConfig
from .base import nll
from .trained import chosen


class Elm(LossObjective[ElmConfig]):
    """cards/elm.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        eighth = max(1, round(shape.n_blocks / 8))
        blocks = range(min(eighth, shape.n_blocks - 1), min(2 * eighth, shape.n_blocks))
        return Requirements(chosen(shape, self.config, blocks), reads=-1, logits=True)

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        encoded = ctx.roles["forget"].encoded
        self.targets = {e.example.id: self._target(e) for e in encoded}
        if self.config.consistency_weight > 0:
            self._sample_changes([e.example for e in encoded])

    @torch.no_grad()
    def _target(self, encoded: Any) -> tuple[Tensor, Tensor]:
        """(ids [n, k], probabilities [n, k]) for the n response tokens of one example."""
        c = self.config
        prefixes = ["", *(p.replace("{concept}", c.concept) for p in (c.expert, c.novice))]
        count = len(encoded.input_ids) - max(encoded.response_start, 1)
        plain, expert, novice = (self._log_probs(encoded, prefix, count) for prefix in prefixes)
        return erased(plain, expert, novice, c.eta, c.top_k)

    def _log_probs(self, encoded: Any, prefix: str, count: int) -> Tensor:
        """[count, V]: the base model's log-probs of the last `count` tokens, at the temperature."""
        ids = list(encoded.input_ids)
        before = self.ctx.tokenizer(prefix)["input_ids"] if prefix else []
        if before and ids[0] == before[0] == self.ctx.tokenizer.bos_token_id:
            ids = ids[1:]
        role = self.ctx.encode("elm", [encoded.example])
        role.encoded = [replace(encoded, input_ids=(*before, *ids))]
        (batch,) = role.chunks(1)
        logits = self.ctx.reference.logits(batch.to(self.ctx.device))[0, -count - 1 : -1]
        self.ctx.views.clear()
        return (logits.float() / self.config.temperature).log_softmax(dim=1)

    def _sample_changes(self, examples: list[Example]) -> None:
        c, starts = self.config, [f"{e.prompt}{e.text}{self.config.change}" for e in examples]
        texts = self.ctx.services.memo(
            "elm-changes",
            {"prompts": starts, "tokens": c.max_new_tokens},
            lambda: self.ctx.services.sample(
                starts, n=1, max_new_tokens=c.max_new_tokens, temperature=1.0, top_p=1.0, seed=0
            ),
        )
        changed = [
            replace(e, prompt=f"{e.prompt}{e.text}", text=c.change + text[0])
            for e, text in zip(examples, texts, strict=True)
        ]
        self.ctx.set_role("elm-change", changed)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        f, r, c = batch["forget"], batch["retain"], self.config
        ctx = self.ctx
        forget = f.mean(ctx.policy.per_token(f, to_target, "response", given=self._targets_of(f)), "response")
        held = r.mean(ctx.policy.per_token(r, to_argmax, "response", against=ctx.reference), "response")
        parts = {"forget": forget, "retain": held}
        if c.consistency_weight > 0:
            parts["change"] = nll(ctx.policy, batch["elm-change"])
        weights = {"forget": c.erase_weight, "retain": c.retain_weight, "change": c.consistency_weight}
        return Loss(parts, {name: weights[name] for name in parts})

    def step(self, batch: Mapping[str, Batch]) -> dict[str, float]:
        if self.config.consistency_weight > 0:
            batch = {**batch, "elm-change": self.ctx.draw("elm-change", self.ctx.step_index)}
        return super().step(batch)

    def _targets_of(self, f: Batch) -> tuple[Tensor, Tensor]:
        """Target ids and probabilities [B, T, k] at response tokens, 0 elsewhere."""
        k = next(iter(self.targets.values()))[0].shape[1]
        ids = torch.zeros(*f.input_ids.shape, k, dtype=torch.long, device=f.input_ids.device)
        probs = torch.zeros(*f.input_ids.shape, k, device=f.input_ids.device)
        mask = f.mask("response")
        for row, example in enumerate(f.examples if f.counted else ()):
            ids[row, mask[row]], probs[row, mask[row]] = self.targets[example.id]
        return ids, probs


def erased(
    plain: Tensor, expert: Tensor, novice: Tensor, eta: tuple[float, float], top_k: int
) -> tuple[Tensor, Tensor]:
    """(ids, probabilities) [n, k] of the target, from log-probs [n, V]."""
    rising = torch.linspace(*eta, len(plain), device=plain.device)[:, None]
    values, ids = (plain - rising * (expert - novice)).topk(min(top_k, plain.shape[1]), dim=1)
    return ids, values.softmax(dim=1)


def to_target(logits: Tensor, _: Tensor, ids: Tensor, probs: Tensor) -> Tensor:
    """[N]: cross-entropy against sparse targets [N, k]."""
    z = logits.float()
    return z.logsumexp(1) * probs.sum(1) - (probs * z.gather(1, ids)).sum(1)


def to_argmax(logits: Tensor, _: Tensor, base: Tensor) -> Tensor:
    """[N]: -log p of the base model's first choice."""
    return -losses.label_logprobs(logits, base.argmax(dim=1))
