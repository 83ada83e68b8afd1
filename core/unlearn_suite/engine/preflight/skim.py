"""All steps of a stage at almost no cost, to learn how many kinds of steps there are and how often each comes.

The blocks of a twin are made hollow. Which blocks an objective asks for, with and without gradients, does not change by
that, and how many it asks for tells the kinds apart (a step with a KL term, one with a simulated attack).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch

from ..keeping import keeping
from ..loop import StageJob, next_batch, open_context, open_views
from ..optim import Optimizer, learning_rate
from .short_attacks import ShortAttacks
from .work import BlockWork, Work

MOST = 256
"""steps that are skimmed; of a longer stage as many, evenly spread in runs of 16"""

_MOST_KINDS = 4


@dataclass(frozen=True)
class Kind:
    """Steps that run equally many blocks with autograd, and without. `largest` is the one with the most work, `share`
    this kind's part of all steps, `work` that of an average step of the kind."""

    largest: int
    share: float
    work: Work


@dataclass(frozen=True)
class Skimmed:
    """`kinds`: those that run least first. `kept`: {(role, what): numbers} that the stage keeps of its base model."""

    kinds: tuple[Kind, ...]
    kept: dict[tuple[str, Any], int]


def skim(model: torch.nn.Module, tokenizer: Any, job: StageJob) -> Skimmed:
    """All steps of a stage on a twin. `job.objective` is used up.

    Of many kinds only the `_MOST_KINDS` that weigh most (steps x blocks) are told apart from the rest.
    """
    views, _, _ = open_views(model, job)
    work = BlockWork(views.replay)
    work.tell_kept(views)
    ctx = open_context(tokenizer, job, views, torch.device("cpu"))
    ctx.adversary = ShortAttacks(ctx, work)
    ctx.optimizer = _Idle(ctx.trainable, job.train)
    job.objective.setup(ctx)
    ctx.views.clear()
    kept = keeping(ctx, job.shelf, next(model.parameters()))
    ctx.views.keep(kept)
    found: dict[tuple[int, int], list[tuple[Work, int]]] = defaultdict(list)
    steps = _chosen(job.train.steps)
    for step in steps:
        batch = next_batch(ctx, job, step)
        work.reset()
        job.objective.step(batch)
        ctx.views.clear()
        did = work.done()
        found[did.calls].append((did, step))
    groups = sorted(found.values(), key=_usual)
    while len(groups) > _MOST_KINDS:  # the lightest joins the one that is most like it
        lightest = groups.pop(min(range(len(groups)), key=lambda i: _usual(groups[i]) * len(groups[i])))
        min(groups, key=lambda g: abs(_usual(g) - _usual(lightest))).extend(lightest)
    kinds = [_kind(group, len(steps)) for group in sorted(groups, key=_usual)]
    return Skimmed(tuple(kinds), kept.tokens_kept() if kept else {})


class _Idle(Optimizer):
    """Its steps compute nothing: what runs does not depend on the weights."""

    def step(self, index: int) -> dict[str, float]:
        with torch.no_grad():
            for parameter in self.trainable.values():
                parameter.mul_(1.0)  # the views are to see that it may have changed
        self.zero_grad()
        return {"grad_norm": 0.0, "lr": learning_rate(self.train, index)}


def _usual(members: list[tuple[Work, int]]) -> float:
    """Work of an average step."""
    return sum(work.forward_passes for work, _ in members) / len(members)


def _kind(members: list[tuple[Work, int]], steps: int) -> Kind:
    """The first of several steps with the most work."""
    _, largest = max(members, key=lambda member: (member[0].forward_passes, -member[1]))
    mean = Work(*(sum(getattr(w, part) for w, _ in members) / len(members) for part in ("grad", "still", "kept")))
    return Kind(largest, len(members) / steps, mean)


def _chosen(steps: int) -> list[int]:
    if steps <= MOST:
        return list(range(steps))
    runs = MOST // 16
    return [i + j for i in (round(k * (steps - 16) / (runs - 1)) for k in range(runs)) for j in range(16)]
