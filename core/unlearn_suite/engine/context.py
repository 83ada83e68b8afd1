"""What an objective sees of the stage it runs in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import PlanError, TrainingError
from ..models.chat import ChatTemplate
from ..specs import Example, Train
from .adversary import Adversary
from .batch import Batch, RoleData, encode
from .distributed import Processes
from .edits import Edit, EditedView
from .fitting import Start, until_it_fits
from .gathering import gathered
from .objective import Loss, Scalars
from .optim import Optimizer, global_norm
from .shape import ModelShape
from .shards import placed_like, whole
from .stage_report import StageReport
from .views import ModelViews, View


class Services(Protocol):
    """What the host lends to a stage beyond training."""

    def sample(
        self, prompts: Sequence[str], *, n: int, max_new_tokens: int, temperature: float, top_p: float, seed: int
    ) -> list[list[str]]:
        """`n` continuations of each prompt, without the prompt, by the model as it is now.

        `temperature` 0 is greedy. The text of prompt i, sample j depends on (`seed`, i, j) and the weights only.
        Prompts are turns of the user where the problem has `chat`. The whole model is brought into memory: raises
        `PrerequisiteError` when it does not fit.
        """

    def memo(self, name: str, key: Any, build: Callable[[], Any]) -> Any:
        """JSON-able `build()`, kept on disk for all cells of the run, under `key` and what made the stage's weights.

        What else the value depends on, such as data, belongs into `key` (JSON-able too); so does the seed, which counts
        among what made the weights only if they have been trained. Who builds it gets the value itself, all others what
        came back from JSON: build lists, not tuples, and mappings with texts as keys.
        """

    def statistics(self, texts: Sequence[str]) -> Mapping[str, float]:
        """Length, diversity, repetition and share of empty ones of sampled texts (`TEXT_STATISTICS`), with the model's
        tokenizer. Raises `ValueError` for no text."""

    def say(self, text: str) -> None:
        """One line to the user (from the first process only)."""

    def warn(self, text: str) -> None:
        """One warning to the user (from the first process only)."""


@dataclass
class StageContext:
    """One stage of one cell. `generator` is the only randomness an objective may use.

    `policy` and `reference` are the model as trained and as it was when the stage began.

    On several devices the same code runs on every process. `draw` gives this process's share of a batch; the
    losses of the shares add up to the batch's, and so do gradients. `trainable` and the gradients of its tensors
    are sharded alike (torch `DTensor`s, cut along the first dimension), those of `torch.autograd.grad` and of
    `adversary` as well: they may be added to one another as they are; `global_norm` and `total` give plain numbers.
    `roles[...].batch`, `roles[...].chunks` and `services` give the same to all: what `setup` makes of them is equal
    on every process. Whether the model is read, and how far, must depend on nothing that differs between them.
    """

    views: ModelViews
    """both views, and what they share"""
    tokenizer: Any
    """the model's transformers tokenizer"""
    train: Train
    """the stage's training keys (`steps`, `lr`, `batch`, `length` ...)"""
    seed: int
    """the cell's seed"""
    generator: torch.Generator
    """randomness of this stage, on the CPU; saved with every checkpoint"""
    examples: Mapping[str, Sequence[Example]]
    """the raw examples of the data roles that the cell's stages name (`roles` and `optional_roles` of their objectives,
    the roles of `stop` and `diagnostics`), but for those that `stop` keeps out of the training. No other role is to be
    seen: a stage cannot learn from what only metrics read"""
    roles: dict[str, RoleData]
    """the encoded examples of every role that has text: what batches are drawn from"""
    artifacts: Path
    """a folder that is there; files written to it are kept with the cell (those of the first process)"""
    services: Services
    """what the host lends: sampling, a memory on disk, messages"""
    device: torch.device
    """where the model is; a batch must be there before a view reads it"""
    processes: Processes = field(default_factory=Processes)
    """the processes that share this stage; one, on one device"""
    chat: ChatTemplate | None = None
    """how prompts become turns of the user; None = they are plain text"""
    step_index: int = 0
    """the step under way, from 0"""
    updates: int = 0
    """how often `update` has been called by this process"""
    optimizer: Optimizer = field(init=False)
    """AdamW over `trainable`, which `update` steps"""
    report: StageReport = field(init=False)
    """takes tables and curves for the run's page"""
    micro_batch: int | None = field(init=False)
    """examples per role and forward pass: the plan's, or fewer where they did not fit into memory"""
    whole_batch: bool = field(default=False, init=False)
    """a batch is never cut: see `require_whole_batch`"""

    def __post_init__(self) -> None:
        self.report = StageReport(self.artifacts)
        self.micro_batch = self.train.micro_batch
        self.optimizer = Optimizer(self.views.trainable, self.train)

    @property
    def policy(self) -> View:
        """The model as it is being trained. Gradients reach `trainable`."""
        return self.views.policy

    @property
    def reference(self) -> View:
        """The model as it was when the stage began. No gradient reaches it."""
        return self.views.reference

    @property
    def shape(self) -> ModelShape:
        """Blocks, widths and tensor names of the model."""
        return self.views.shape

    @property
    def trainable(self) -> Mapping[str, nn.Parameter]:
        """Full name -> parameter: those of `Requirements.trainable`, or with `lora` in the stage the adapters' in
        their place."""
        return self.views.trainable

    @cached_property
    def adversary(self) -> Adversary:
        """A simulated attacker of the model as it is when an attack begins."""
        return Adversary(self.views, self.generator, self.services.say, self.total)

    def edited(self, edits: Mapping[int, Edit]) -> EditedView:
        """The model as it is now with {block: edit} carried out on block outputs while it is read or sampled from.

        An edit gets a block's output [B, T, D] and returns what stands in its place, of the same shape and dtype.
        Raises `PlanError` (`no-such-block`).
        """
        return EditedView(self.views.replay, self.views.trainable, edits)

    def global_norm(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """L2 norm over all entries of all tensors, sharded or not: a scalar, float32, without gradient, the same on
        every process. None counts for nothing."""
        return global_norm(tensors)

    def total(self, value: Tensor | float) -> float:
        """A number of this process's share of a batch (a mean by `Batch.mean`, say) -> that of the whole batch."""
        return self.processes.total([float(value)])[0]

    def require_one_device(self, why: str) -> None:
        """Raise `PlanError` on several devices. `why`: "repnoise compares the examples of a batch", say."""
        if self.processes.size > 1:
            raise PlanError(
                f"{why}, which several devices cut",
                code="needs-one-device",
                hint="set compute.devices to 1",
            )

    def require_whole_batch(self, why: str, *, gathers: bool = False) -> None:
        """Raise `PlanError` on several devices or with `micro_batch`, and never cut a batch when memory runs out.

        `why`: "repnoise compares the examples of a batch", say. `gathers`: the loss reads the rows of all devices, with
        `rows`, and may run on several.
        """
        if not gathers:
            self.require_one_device(why)
        if self.train.micro_batch is not None:
            raise PlanError(f"{why}, which micro_batch cuts", code="micro-batch", hint="leave micro_batch out")
        self.whole_batch = True

    def rows(self, batch: Batch, x: Tensor) -> Tensor:
        """Values [n, ...] of the rows of a drawn batch, of which this process has a share -> [N, ...] of all its rows.

        For a loss that compares them; gradients go back to each row. Where shares are of different width ([n, T, ...])
        zeros fill them up. Every process has the same [N, ...], so a loss made of them counts once on each: divide
        it by `batch.shares`.
        """
        if self.processes.size == 1:
            return x
        return gathered(x if batch.counted else x[:0])

    def whole(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor that is spread over several devices (one of `trainable`, or a gradient), on each of
        them; any other as it is."""
        return whole(tensor)

    def placed(self, value: Tensor, like: Tensor) -> Tensor:
        """A whole tensor cut as `like` is, which has the same shape: `p.copy_(ctx.placed(edited, p))`."""
        cut: Tensor = placed_like(value, like)
        return cut

    def encode(self, role: str, examples: Sequence[Example]) -> RoleData:
        """Examples as a role of their own, cut and ordered as the stage's are.

        Raises `PlanError` (`no-text`) when none of them has two tokens.
        """
        encoded = encode(self.tokenizer, examples, self.train.length, end=self.train.end, chat=self.chat)
        return RoleData(role, encoded, self.tokenizer.pad_token_id or 0, self.seed)

    def set_role(self, role: str, examples: Sequence[Example]) -> None:
        """Draw this role's batches from other examples (in `setup`, the same on every call). Raises as `encode`."""
        self.roles[role] = self.encode(role, examples)

    def split_role(self, role: str, first: str, second: str) -> None:
        """Draw the roles `first` and `second` from disjoint halves of `role`, by unit, fixed by hash: what a simulated
        attacker trains on, and what is measured after it. When a half would be empty both get all, with a warning.
        Raises `KeyError` for a role without text."""
        halves: tuple[list[Example], list[Example]] = ([], [])
        examples = [e.example for e in self.roles[role].encoded]
        for example in examples:
            digest = hashlib.sha256((example.unit or example.id).encode()).digest()
            halves[digest[0] % 2].append(example)
        if not all(halves):
            halves = (examples, examples)
            self.services.warn(f"too few units of {role!r} to split: {first!r} and {second!r} have the same texts")
        self.set_role(first, halves[0])
        self.set_role(second, halves[1])

    def draw(self, role: str, step: int, size: int | None = None) -> Batch:
        """This process's share of the batch of `role` at a step, on `device`: `size` examples in all (`train.batch`).

        The batch is a pure function of (seed, role, step, size). Raises `KeyError` for a role without text.
        """
        batch = self.roles[role].batch(step, size or self.train.batch)
        if self.processes.size > 1:
            batch = batch.share(self.processes.rank, self.processes.size)
        return batch.to(self.device)

    def backward(self, loss: Callable[[Mapping[str, Batch]], Loss], batch: Mapping[str, Batch]) -> Scalars:
        """Add the gradient of `loss(batch)` to `.grad` of `trainable`, cut into micro-batches as the plan asks.

        `batch`: from `draw`, by role. Returns the parts, their weighted sum `loss`, and the loss's own scalars, all of
        the whole batch. When memory runs out it begins again with half the micro-batch. Raises `TrainingError` when
        one of these is not finite (`non-finite`) or a batch is not this process's share (`whole-batch`), and
        `PrerequisiteError` (`memory`) when one example does not fit.
        """
        rows = max(len(b.examples) for b in batch.values())
        return until_it_fits(self, rows, Start(self), lambda: self._backward(loss, batch))

    def _backward(self, loss: Callable[[Mapping[str, Batch]], Loss], batch: Mapping[str, Batch]) -> Scalars:
        total: Scalars = {}
        for micro in self._micro_batches(batch):  # one at a time: what a view has of it goes with it
            result = loss(micro)
            value = result.total()
            named = {"loss": value, **result.parts, **result.scalars}
            numbers = [float(n.detach() if isinstance(n, Tensor) else n) for n in named.values()]
            for name, number in zip(named, self.processes.total(numbers), strict=True):
                total[name] = total.get(name, 0.0) + number
            self._check_finite(total)
            value.backward()
            self.policy.clear()
        return total

    def update(self) -> Scalars:
        """Clip, step the optimizer, clear gradients. Parameters without a gradient count as having gradient 0.

        Returns `grad_norm` (before clipping) and `lr`. Raises `TrainingError` (`non-finite`).
        """
        self.updates += 1
        scalars = self.optimizer.step(self.step_index)
        self._check_finite(scalars)
        self.policy.clear()
        return scalars

    def _micro_batches(self, batch: Mapping[str, Batch]) -> Iterator[dict[str, Batch]]:
        """A role that runs out before the others goes on with no examples."""
        for role, b in batch.items():
            if b.shares != self.processes.size:
                raise TrainingError(
                    f"the batch of role {role!r} is not this process's share: its gradient would count several times",
                    code="whole-batch",
                    hint="draw the batches of a loss with ctx.draw",
                )
        size = self.micro_batch
        if size is None:
            yield dict(batch)
            return
        pieces = {role: b.split(size) for role, b in batch.items()}
        if self.processes.size > 1:  # as many as the process with the most rows has
            for role, b in batch.items():
                most = math.ceil(math.ceil(b.totals.examples / b.shares) / size)
                pieces[role] += [b.nothing()] * (most - len(pieces[role]))
        while any(pieces.values()):
            yield {role: p.pop(0) if p else batch[role].empty() for role, p in pieces.items()}

    def _check_finite(self, scalars: Scalars) -> None:
        bad = [name for name, value in scalars.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"{', '.join(bad)} is not finite at step {self.step_index}",
                code="non-finite",
                where=f"step {self.step_index}",
                hint="lower the learning rate, or clip harder; results of finished steps are kept",
            )
