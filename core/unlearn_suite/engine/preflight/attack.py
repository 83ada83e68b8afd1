"""Memory and FLOPs of an attack, from its traces on the two twins.

The attack itself runs, but of each walk of its adversary only one step is traced, the largest, two times. Which one
that is, and how much work all steps are, is told by a twin whose blocks do nothing, as for stages.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ...models.chat import ChatTemplate
from ...specs import Example
from ..adversary import Adversary
from ..adversary.walk import InnerLoss, Walk
from ..attack import Attack, AttackContext
from ..views import ModelViews
from .record import Recorder, Tape, no_collection, play
from .stand_in import FoldedTokenizer
from .twin import Family
from .work import BlockWork, Work

_TRACED = 2
"""times that a walk's largest step is traced: the optimizer makes its state in the first"""

_SKIMMED = 32
"""steps of each walk that are run on hollow blocks; the others are taken to be like them"""

_MOST_PASSES = 256
"""times that the model may run in a trace"""


@dataclass(frozen=True)
class AttackPlan:
    """An attack as the plan has it. `attack()` makes a new one on every call; `changed` names the tensors that
    unlearning has changed."""

    attack: Callable[[], Attack[Any]]
    examples: Mapping[str, Sequence[Example]]
    changed: Sequence[str] = ()
    seed: int = 0
    chat: bool = False


@dataclass(frozen=True)
class AttackEstimate:
    """Bytes and FLOPs of an attack, without what is scored on its way.

    `peak_bytes` is what torch has allocated at most, all weights included, `held_bytes` the same while the model is
    scored, beside what scoring takes; `resident_bytes` and `held_resident` what a Linux process keeps in RAM for them
    on the CPU. `doubtful`: largest share of a peak that is a guess.
    """

    peak_bytes: int
    held_bytes: int
    resident_bytes: int
    held_resident: int
    flops: int
    doubtful: float = 0.0


def estimate_attack(family: Family, tokenizer: Any, plan: AttackPlan) -> AttackEstimate:
    """`tokenizer` None: four characters are taken to be a token. Raises what the attack does on a twin, and
    `TwinsDiffer`."""
    folded = family.folded(tokenizer)
    with torch.random.fork_rng(devices=[]):
        needed, largest = _skim(family.twin(0), folded, plan)
        runs = [_trace(family.twin(which), folded, plan, largest) for which in (0, 1)]
    measured = play([tape for tape, _ in runs], family.scale)
    weights, traced = family.weight_bytes(), runs[0][1].forward_passes
    rate = measured.flops.get("attack", 0.0) / max(traced, 1.0)
    return AttackEstimate(
        peak_bytes=round(weights + measured.peak["attack"]),
        held_bytes=round(weights + measured.peak.get("point", 0.0)),
        resident_bytes=round(weights + measured.resident["attack"]),
        held_resident=round(weights + measured.resident.get("point", 0.0)),
        flops=round(rate * needed if traced else measured.flops.get("attack", 0.0)),
        doubtful=measured.doubtful,
    )


def _skim(model: nn.Module, tokenizer: FoldedTokenizer, plan: AttackPlan) -> tuple[float, list[int]]:
    """(work of all steps in positions of a forward pass, the largest step of each walk)."""
    ctx = _TwinContext(model, tokenizer, plan, _SKIMMED)
    for _ in plan.attack().run(ctx):
        pass
    walks = ctx.adversary
    taken = sum(map(len, walks.sizes))
    work = ctx.work.done().forward_passes * (walks.asked / taken if taken else 1.0)
    return work, [max(range(len(sizes)), key=sizes.__getitem__, default=0) for sizes in walks.sizes]


def _trace(model: nn.Module, tokenizer: FoldedTokenizer, plan: AttackPlan, largest: Sequence[int]) -> tuple[Tape, Work]:
    recorder = Recorder()
    with no_collection(), recorder:
        with recorder.phase("attack"):
            ctx = _TwinContext(model, tokenizer, plan, _TRACED, recorder, largest)
            steps = iter(plan.attack().run(ctx))
        while True:
            with recorder.phase("attack"):
                if next(steps, None) is None:
                    break
            gc.collect()
            with recorder.phase("point"):
                pass
        ctx.restore()
    return recorder.tape, ctx.work.done()


class _TwinContext(AttackContext):
    """What an attack sees of a twin; for the other arguments see `_ShortWalks`. Without a recorder its blocks are
    hollow."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: FoldedTokenizer,
        plan: AttackPlan,
        most: int,
        recorder: Recorder | None = None,
        only: Sequence[int] | None = None,
    ) -> None:
        weights = dict(model.named_parameters())
        originals: dict[str, Tensor] = {name: weights[name].detach() for name in plan.changed}
        chat = ChatTemplate(tokenizer) if plan.chat else None
        super().__init__(model, tokenizer, plan.examples, plan.seed, originals, lambda text: None, chat)
        most_calls = _MOST_PASSES * self.shape.n_blocks if recorder else math.inf
        self.work = BlockWork(self._views.replay, recorder, most_calls)
        self._most = most
        self._only = only

    @cached_property
    def adversary(self) -> _ShortWalks:
        return _ShortWalks(self._views, self.generator, self.say, self.work, self._most, self._only)


class _ShortWalks(Adversary):
    """Takes the first `most` steps of every walk alone, or as often the one that `only` names for the walk.

    `asked`: steps so far. `sizes`: of each walk, the work of every step that was taken.
    """

    def __init__(
        self,
        views: ModelViews,
        generator: torch.Generator,
        say: Callable[[str], None],
        work: BlockWork,
        most: int,
        only: Sequence[int] | None,
    ) -> None:
        super().__init__(views, generator, say)
        self._work = work
        self._most = most
        self._only = only
        self.asked = 0
        self.sizes: list[list[float]] = []

    @contextmanager
    def walk(self, inner_loss: InnerLoss, **options: Any) -> Iterator[Walk]:
        number = len(self.sizes)
        sizes: list[float] = []
        self.sizes.append(sizes)

        def loss(k: int) -> Tensor:
            return inner_loss(self._only[number] if self._only else k)

        with super().walk(loss, **options) as walk:
            take = walk.step

            def step() -> dict[str, Tensor]:
                self.asked += 1
                if len(sizes) >= self._most:
                    walk.losses.append(walk.losses[-1])
                    return {}
                before = self._work.done().forward_passes
                found = take()
                sizes.append(self._work.done().forward_passes - before)
                return found

            walk.step = step  # type: ignore[method-assign]
            try:
                yield walk
            finally:
                del walk.step  # a circle would keep the walk in memory
