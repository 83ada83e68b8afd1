"""Does the model write less toxic text when a direction is taken out of it while it writes? (The causal filter.)

A probe can be right about the text and its direction yet do nothing for what is written (arXiv:2306.03819).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from unlearn_suite import StageContext, losses

from ..metrics.scorers import scorer_of
from .config import ProbeDirectionsConfig
from .corpus import Corpus
from .directions import Direction
from .losses import ablated

BENIGN_TEXTS = 64
BATCH = 16


@dataclass(frozen=True)
class Effect:
    """Of removing one block's direction at inference: mean toxicity of the continuations, its relative drop, and
    KL(model || ablated model) on benign text, nats per token."""

    toxicity: float
    drop: float
    kl: float

    def passes(self, config: ProbeDirectionsConfig) -> bool:
        return self.drop >= config.causal_drop and self.kl <= config.causal_kl


def effects(
    ctx: StageContext, config: ProbeDirectionsConfig, corpus: Corpus, directions: Mapping[int, Direction]
) -> dict[int, Effect]:
    """Each block's effect, kept on disk with the run so that a resumed stage need not sample again."""
    prompts = corpus.prompts[: config.causal_prompts]
    key = {
        "prompts": list(prompts),
        "benign": [e.id for e in corpus.benign_val[:BENIGN_TEXTS]],
        "sampling": [config.max_new_tokens, config.top_p, config.model_dump(mode="json")["scorer"]],
        "directions": {str(b): _digest(d) for b, d in directions.items()},
    }

    def build() -> dict[str, Any]:
        base = _toxicity(ctx, config, prompts)
        return {str(b): asdict(_effect(ctx, config, corpus, b, d, base)) for b, d in directions.items()}

    found = ctx.services.memo("causal", key, build)
    return {int(b): Effect(**effect) for b, effect in found.items()}


def _effect(
    ctx: StageContext, config: ProbeDirectionsConfig, corpus: Corpus, block: int, d: Direction, base: float
) -> Effect:
    view = ctx.edited({block: lambda h: ablated(h, d.axes).to(h.dtype)})
    with view.applied():
        toxicity = _toxicity(ctx, config, corpus.prompts[: config.causal_prompts])
    total = tokens = 0.0
    with torch.no_grad():
        for batch in ctx.encode("probe", corpus.benign_val).chunks(BATCH, BENIGN_TEXTS):
            moved = batch.to(ctx.device)
            total += float(ctx.reference.per_token(moved, _kl, "response", against=view).sum())
            tokens += moved.totals.response
            ctx.views.clear()
    return Effect(toxicity, 1 - toxicity / base if base > 0 else 0.0, total / max(tokens, 1.0))


def _toxicity(ctx: StageContext, config: ProbeDirectionsConfig, prompts: tuple[str, ...]) -> float:
    """Mean score of one continuation per prompt of the model as it runs now; always the same random numbers."""
    texts = ctx.services.sample(
        prompts, n=1, max_new_tokens=config.max_new_tokens, temperature=1.0, top_p=config.top_p, seed=1
    )
    return fmean(scorer_of(config.scorer).score([text for (text,) in texts]))


def _kl(reference: Tensor, _: Tensor, edited: Tensor) -> Tensor:
    return losses.kl(reference, edited)


def _digest(direction: Direction) -> str:
    content = b"".join(t.cpu().numpy().tobytes() for a in direction.axes for t in (a.read, a.edit))
    return hashlib.sha256(content + repr([a.mu0 for a in direction.axes]).encode()).hexdigest()[:20]
