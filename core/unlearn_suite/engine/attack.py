"""What an attack is: a change of unlearned weights that may bring back what was forgotten, scored on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..models.chat import ChatTemplate
from ..specs import AttackConfig, AttackPoint, Example
from .adversary import Adversary
from .batch import RoleData, encode
from .shape import ModelShape
from .views import ModelViews, View

if TYPE_CHECKING:
    from torch import Generator

A = TypeVar("A", bound=AttackConfig)


class AttackContext:
    """The unlearned model under attack. Whatever happens to it is undone, bit for bit, when the attack is over.

    `model` and `tokenizer` are the live objects; weights are changed through `adversary` (inner steps) or `put`.
    `examples`: the problem's data by role. `generator` is the only randomness, seeded by the cell. `originals`:
    published values of the tensors that unlearning has changed. `say` tells the user something. `chat`: how the
    problem's prompts become turns of the user; none = they are plain text.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        examples: Mapping[str, Sequence[Example]],
        seed: int,
        originals: Mapping[str, Tensor],
        say: Callable[[str], None],
        chat: ChatTemplate | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.examples = examples
        self.seed = seed
        self.originals = originals
        self.say = say
        self.chat = chat
        self.shape = ModelShape.of(model)
        self.generator: Generator = torch.Generator().manual_seed(seed)
        self._before: dict[str, Tensor] = {}

    @cached_property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """All weights by name."""
        return dict(self.model.named_parameters())

    @cached_property
    def _views(self) -> ModelViews:
        return ModelViews(self.model, self.shape, ())

    @property
    def policy(self) -> View:
        """The attacked model, to be read in a loss."""
        return self._views.policy

    @cached_property
    def adversary(self) -> Adversary:
        """Takes inner steps; see `StageContext.adversary`."""
        return Adversary(self._views, self.generator, self.say)

    def encode(self, role: str, length: int) -> RoleData:
        """A role's examples as tokens, cut at `length`; its `batch(step, size)` is a function of (seed, step)."""
        encoded = encode(self.tokenizer, self.examples[role], length, chat=self.chat)
        return RoleData(role, encoded, self.tokenizer.pad_token_id or 0, self.seed)

    def put(self, name: str, values: Tensor) -> None:
        """Give a weight other values, of its shape."""
        parameter = self.parameters[name]
        self._before.setdefault(name, parameter.detach().clone())
        with torch.no_grad():
            parameter.copy_(values)
        self._views.clear()

    def restore(self) -> None:
        """Undo every `put`."""
        with torch.no_grad():
            for name, values in self._before.items():
                self.parameters[name].copy_(values)
        self._before.clear()
        self._views.clear()


class Attack(Generic[A]):
    """One attack. Made anew for every cell."""

    def __init__(self, config: A) -> None:
        self.config = config

    def run(self, ctx: AttackContext) -> Iterator[AttackPoint]:
        """Change the model and yield each point of `config.points()`, in their order, when the model is there.

        The host scores the model before it asks for the next one.
        """
        raise NotImplementedError
