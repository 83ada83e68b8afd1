"""What an objective is. An author writes the equation; the engine makes it cheap, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..specs import Config

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import Batch
    from .context import StageContext
    from .shape import ModelShape

C = TypeVar("C", bound=Config)
Scalars = dict[str, float]


@dataclass(frozen=True)
class Requirements:
    """What an objective will touch, told before any weight is loaded.

    `trainable`: full parameter names (use `shape.select`). `reads`: deepest block (0-based) whose output
    the objective reads, -1 for none. `logits`: whether it reads logits or token log-probs.
    `reference`: whether it reads the frozen base model. `head`: whether it puts vectors through the LM head
    (`View.unembed`), which needs no block.
    """

    trainable: tuple[str, ...]
    reads: int
    logits: bool = False
    reference: bool = True
    head: bool = False


@dataclass
class Loss:
    """Named parts (scalar tensors) and their weights (1 where not named); `scalars` are only logged.

    The total is the weighted sum of the parts. Parts must be means taken with `batch.mean` (or sums of
    such), so that the engine may cut a batch into micro-batches without changing the gradient.
    """

    parts: Mapping[str, Tensor]
    weights: Mapping[str, float] = field(default_factory=dict)
    scalars: Mapping[str, Tensor | float] = field(default_factory=dict)

    def total(self) -> Tensor:
        unknown = set(self.weights) - set(self.parts)
        if unknown:
            raise ValueError(f"weights for parts that do not exist: {sorted(unknown)}")
        terms = [part * self.weights.get(name, 1.0) for name, part in self.parts.items()]
        if not terms:
            raise ValueError("a Loss needs at least one part")
        return sum(terms[1:], start=terms[0])


class Objective(Generic[C]):
    """Lives for one stage of one cell. `step` owns forward, backward and update.

    Order of calls: `__init__(config)`, `requirements`, `setup`, (`load_state_dict` on resume), `step` for
    every step, `finish`. Use `ctx.generator` for all randomness: it is saved and restored. Change weights with
    `ctx.update` only, at the end of a step: a step that runs out of memory before it is taken again from its start,
    with a smaller `ctx.micro_batch`.
    """

    def __init__(self, config: C) -> None:
        self.config = config
        self.ctx: StageContext

    def requirements(self, shape: ModelShape) -> Requirements:
        raise NotImplementedError

    def setup(self, ctx: StageContext) -> None:
        """Called once, on the base weights of the stage, before the first step."""
        self.ctx = ctx

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Everything beside weights, optimizer and generator that the next step depends on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def finish(self) -> Scalars:
        """After the last step: closing measurements (fresh probes, say)."""
        return {}


class LossObjective(Objective[C]):
    """An objective that is a loss: the engine does backward, accumulation, clipping and update."""

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        raise NotImplementedError

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        scalars = self.ctx.backward(self.loss, batch)
        return {**scalars, **self.ctx.update()}
