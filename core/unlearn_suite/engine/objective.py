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
"""name -> finite number: what a step or a stage tells, kept as the training curves"""


@dataclass(frozen=True)
class Requirements:
    """What an objective will touch, told before any weight is loaded: no more than this is loaded and run.

    Saying too little gives no wrong number: what is missing is loaded when it is read, with a warning. A tensor that
    the model lacks is a `TrainingError` (`no-such-tensor`).
    """

    trainable: tuple[str, ...]
    """full names of the parameters that are trained (from `shape.select` or `shape.match`)"""
    reads: int
    """deepest block (from 0) whose output is read; -1 for none"""
    logits: bool = False
    """whether logits, token log-probs or the last hidden state are read: the whole depth, whatever `reads` says"""
    reference: bool = True
    """whether the model as it was when the stage began is read (`ctx.reference`)"""
    head: bool = False
    """whether vectors go through the LM head (`View.unembed`), which needs no block"""


@dataclass
class Loss:
    """Named parts and their weights. The loss is the weighted sum of the parts.

    Parts and scalars must be means taken with `batch.mean` (or sums of such): they are added up over micro-batches and
    processes, so that a batch may be cut without changing the gradient or what is logged. All are logged by their
    names; `loss` is the name of the sum.
    """

    parts: Mapping[str, Tensor]
    """name -> scalar tensor; at least one"""
    weights: Mapping[str, float] = field(default_factory=dict)
    """name of a part -> its factor; 1 where not named"""
    scalars: Mapping[str, Tensor | float] = field(default_factory=dict)
    """name -> scalar that is only logged; added up over micro-batches as parts are"""

    def total(self) -> Tensor:
        """The weighted sum of the parts, a scalar. Raises `ValueError` for no part, or a weight of a part that is not
        there."""
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
    every step, `finish`. Use `ctx.generator` for all randomness: it is saved and restored. Before `finish`,
    change weights with `ctx.update` only, at the end of a step: a step that runs out of memory before it is taken
    again from its start, with a smaller `ctx.micro_batch`.

    A `SuiteError` that is raised inside is told as it is; any other exception becomes a `PluginError` with the plugin's
    distribution, file and line.
    """

    def __init__(self, config: C) -> None:
        """`config`: the options, an instance of the class that the spec names."""
        self.config = config
        """the options"""
        self.ctx: StageContext
        """the stage, from `setup` on"""

    def requirements(self, shape: ModelShape) -> Requirements:
        """What is trained and read, told from the model's shape alone. It is called more than once, first
        before any weight is loaded. Raise `PlanError` for options that this model cannot serve."""
        raise NotImplementedError

    def setup(self, ctx: StageContext) -> None:
        """Called once, on the weights that the stage begins with (on resume too), before the first step. Keeps `ctx` as
        `self.ctx`: call `super().setup(ctx)`."""
        self.ctx = ctx

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        """One training step: forward, backward (`ctx.backward`) and update (`ctx.update`). `batch` holds this process's
        share of a batch for each of the spec's `roles`. Returns what the training curves show."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Everything beside weights, optimizer and generator that the next step depends on: tensors, numbers and texts,
        in dicts, lists and tuples."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave: on resume, after `setup`, and before a step is taken again."""

    def finish(self) -> Scalars:
        """After the last step: closing measurements (fresh probes, say), or a last edit of the weights in place.

        Returns scalars that are kept behind those of the last step.
        """
        return {}


class LossObjective(Objective[C]):
    """An objective that is a loss: the engine does backward, accumulation, clipping and update."""

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        """The loss of a batch by role, or of a micro-batch of it: it is called once for each, and in any of them a role
        may have no example. It draws nothing at random."""
        raise NotImplementedError

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        """`ctx.backward` of `loss`, then `ctx.update`. Returns the scalars of both."""
        scalars = self.ctx.backward(self.loss, batch)
        return {**scalars, **self.ctx.update()}
