"""All steps of a stage at almost no cost, to learn how many kinds of steps there are and how often each comes.

The blocks of a twin are made hollow: each hands on its input. Which blocks an objective asks for, with and without
gradients, does not change by that, and it tells the kinds apart (a step with a KL term, one with a simulated attack).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..loop import StageJob, next_batch, open_context, open_views

MOST = 256
"""steps that are skimmed; of a longer stage as many, evenly spread in runs of 16"""

_MOST_KINDS = 4


@dataclass(frozen=True)
class Kind:
    """Steps that run the same blocks. `largest` is the step with the most padded positions (B x T over all roles);
    `share` is this kind's part of all steps; `positions` are those of an average step of the kind."""

    largest: int
    share: float
    positions: float
    largest_positions: int


class _Hollow(nn.Module):
    """A block in name and parameters, whose output is its input; its trained parameters get gradients, all zero."""

    def __init__(self, block: nn.Module, note: Callable[[bool], None]) -> None:
        super().__init__()
        self._parameters, self._modules, self._buffers = block._parameters, block._modules, block._buffers
        self.__dict__["_block"] = block
        self.__dict__["_note"] = note
        self.__dict__["_tuple"] = None

    def __getattr__(self, name: str) -> Any:
        with suppress(AttributeError):
            return super().__getattr__(name)
        return getattr(self.__dict__["_block"], name)

    def forward(self, h: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.__dict__["_note"](torch.is_grad_enabled())
        if self.__dict__["_tuple"] is None:
            with torch.no_grad():
                self.__dict__["_tuple"] = isinstance(self.__dict__["_block"](h, *args, **kwargs), tuple)
        for parameter in self.parameters():
            if parameter.requires_grad:
                h = h + 0.0 * parameter.flatten()[0]
        return (h,) if self.__dict__["_tuple"] else h


def skim(model: nn.Module, tokenizer: Any, job: StageJob) -> list[Kind]:
    """The kinds of steps of a stage on a twin, those that run least first. `job.objective` is used up.

    Of many kinds only the `_MOST_KINDS` that weigh most (steps x blocks) are told apart from the rest.
    """
    views, _, _ = open_views(model, job)
    ran: list[int] = [0, 0]

    def note(grad: bool) -> None:
        ran[grad] += 1

    path = views.shape.blocks_path
    blocks: Any = model.get_submodule(path)
    for index, block in enumerate(list(blocks)):
        blocks[index] = _Hollow(block, note)
    views.replay.blocks = list(blocks)
    ctx = open_context(tokenizer, job, views, torch.device("cpu"))
    job.objective.setup(ctx)
    ctx.views.clear()
    found: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    steps = _chosen(job.train.steps)
    for step in steps:
        batch = next_batch(ctx, job, step)
        ran[:] = 0, 0
        job.objective.step(batch)
        ctx.views.clear()
        found[ran[0], ran[1]].append((step, positions(batch)))
    while len(found) > _MOST_KINDS:  # the lightest joins the one that is most like it
        lightest = min(found, key=lambda ran: sum(ran) * len(found[ran]))
        members = found.pop(lightest)
        found[min(found, key=lambda ran: abs(sum(ran) - sum(lightest)))] += members
    return [_kind(found[ran], len(steps)) for ran in sorted(found, key=sum)]


def positions(batch: Mapping[str, Batch]) -> int:
    """Padded positions, B x T over all roles."""
    return sum(b.input_ids.numel() for b in batch.values())


def _kind(members: list[tuple[int, int]], steps: int) -> Kind:
    largest, most = max(members, key=lambda m: m[1])
    return Kind(largest, len(members) / steps, sum(p for _, p in members) / len(members), most)


def _chosen(steps: int) -> list[int]:
    if steps <= MOST:
        return list(range(steps))
    runs = MOST // 16
    return [i + j for i in (round(k * (steps - 16) / (runs - 1)) for k in range(runs)) for j in range(16)]
