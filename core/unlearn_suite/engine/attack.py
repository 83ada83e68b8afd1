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
    """The unlearned model under attack. What `put` and `adversary` do to it is undone, bit for bit, when the attack is
    over; change weights through these two only."""

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
        """the live transformers model, in evaluation mode; batches belong on its `device`"""
        self.tokenizer = tokenizer
        """its tokenizer"""
        self.examples = examples
        """the raw examples of the data roles that the attack's spec names"""
        self.seed = seed
        """the cell's seed"""
        self.originals = originals
        """full name -> value in the published model, of the tensors that have been changed since; read only"""
        self.say = say
        """one line to the user"""
        self.chat = chat
        """how prompts become turns of the user; None = they are plain text"""
        self.shape = ModelShape.of(model)
        """blocks, widths and tensor names of the model"""
        self.generator: Generator = torch.Generator().manual_seed(seed)
        """the only randomness an attack may use, on the CPU, seeded by the cell"""
        self._before: dict[str, Tensor] = {}

    @cached_property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Full name -> parameter, of all weights. Read them; to change one, `put`."""
        return dict(self.model.named_parameters())

    @cached_property
    def _views(self) -> ModelViews:
        return ModelViews(self.model, self.shape, ())

    @property
    def policy(self) -> View:
        """The model as it is now, attacked so far. Gradients reach what an `adversary` walk moves, within it."""
        return self._views.policy

    @cached_property
    def adversary(self) -> Adversary:
        """Takes inner steps: `with ctx.adversary.walk(...)`. Nothing is trained here, so give `tensors="all"` or
        `"lora"`. `Adversary.attack`, the gradient of an attack, is for objectives."""
        return Adversary(self._views, self.generator, self.say)

    def encode(self, role: str, length: int) -> RoleData:
        """A role's examples as tokens, cut at `length`; its `batch(step, size)` is a function of (seed, role, step), on
        the CPU: move it with `.to(ctx.model.device)`.

        Raises `KeyError` for a role that is not in `examples`, `PlanError` (`no-text`) when no example has two tokens.
        """
        encoded = encode(self.tokenizer, self.examples[role], length, chat=self.chat)
        return RoleData(role, encoded, self.tokenizer.pad_token_id or 0, self.seed)

    def put(self, name: str, values: Tensor) -> None:
        """Give a weight (its full name) other values, of its shape. Raises `KeyError` for a name the model lacks,
        `ValueError` for another shape."""
        parameter = self.parameters[name]
        if values.shape != parameter.shape:
            raise ValueError(f"values of shape {tuple(values.shape)} for {name}, which has {tuple(parameter.shape)}")
        self._before.setdefault(name, parameter.detach().clone())
        with torch.no_grad():
            parameter.copy_(values)
        self._views.clear()

    def published(self) -> dict[str, Tensor]:
        """Full name -> value in the published model, of all that unlearning and this attack so far have changed."""
        return {**self._views.before, **self._before, **self.originals}

    def restore(self) -> None:
        """Undo every `put`. The host does so when the attack is over."""
        with torch.no_grad():
            for name, values in self._before.items():
                self.parameters[name].copy_(values)
        self._before.clear()
        self._views.clear()


class Attack(Generic[A]):
    """One attack. Made anew for every cell."""

    def __init__(self, config: A) -> None:
        """`config`: the options, an instance of the class that the spec names."""
        self.config = config
        """the options"""

    def run(self, ctx: AttackContext) -> Iterator[AttackPoint]:
        """Change the model and yield each point of `config.points()`, in their order, when the model is there.

        The host scores the model before it asks for the next one, and may not ask for all of them: it closes the
        generator then. Other points than promised are a `PluginError` (`plugin-attack`).
        """
        raise NotImplementedError
