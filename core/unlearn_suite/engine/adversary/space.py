"""What an attack may change, opened for its time: values, gradients and views are as before on every way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import PlanError
from ..needs import make_whole
from ..optim import global_norm
from ..views import ModelViews
from .side_adapters import side_adapters

InnerTensors = Literal["same", "lora", "all"]
"""the stage's trainable tensors; fresh adapters on every linear map of the blocks; every weight of the model"""


@dataclass(frozen=True)
class Space:
    """`moved`: what inner steps change, by name; `start`: a copy of its values before."""

    views: ModelViews
    moved: dict[str, nn.Parameter]
    start: dict[str, Tensor]

    @property
    def union(self) -> dict[str, nn.Parameter]:
        """The stage's trainable tensors and the moved ones, each once."""
        return {**self.views.trainable, **self.moved}

    def scale(self) -> float:
        """|start|: what relative displacements refer to."""
        return float(global_norm(self.start.values()))

    def displacement(self) -> float:
        """|moved - start| / |start|"""
        moved = global_norm(p.detach() - self.start[n] for n, p in self.moved.items())
        return float(moved) / max(self.scale(), 1e-12)

    def put(self, values: dict[str, Tensor]) -> None:
        """Make these the values of moved tensors; what the policy view had computed is forgotten."""
        with torch.no_grad():
            for name, value in values.items():
                self.moved[name].copy_(value)
        self.views.policy.clear()


@contextmanager
def opened(views: ModelViews, tensors: InnerTensors, rank: int, generator: torch.Generator) -> Iterator[Space]:
    """The space of an attack. Both views know inside what may have changed; the reference stays what it was."""
    if tensors == "same" and not views.trainable:
        raise PlanError(
            "there is nothing to move: no tensor is trained here",
            code="attack-tensors",
            hint='give tensors="all" or "lora" to the walk',
        )
    if tensors != "same":
        make_whole(views.replay.model)
    with ExitStack() as stack:
        if tensors == "lora":
            moved = stack.enter_context(side_adapters(views.replay, rank, generator))
        elif tensors == "all":
            moved = dict(views.replay.model.named_parameters())
        else:
            moved = dict(views.trainable)
        start = {name: p.detach().clone() for name, p in moved.items()}
        stack.enter_context(_put_back(moved, start))
        stack.enter_context(views.also_changing(moved, start))
        yield Space(views, moved, start)


@contextmanager
def _put_back(moved: dict[str, nn.Parameter], start: dict[str, Tensor]) -> Iterator[None]:
    before = {name: (p.grad, p.requires_grad) for name, p in moved.items()}
    try:
        for p in moved.values():
            p.requires_grad_(True)
        yield
    finally:
        with torch.no_grad():
            for name, p in moved.items():
                p.copy_(start[name])
                p.grad, wanted = before[name]
                p.requires_grad_(wanted)
