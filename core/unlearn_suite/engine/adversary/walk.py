"""Inner steps, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .rules import Rule
from .space import Space

InnerLoss = Callable[[int], Tensor]
"""k = 0, 1, ... -> the loss of inner step k, read through the policy view; the same each time it is asked for k"""


def gradients(loss: Tensor, tensors: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Gradients by name, of those tensors that the loss depends on."""
    found = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
    return {name: g for name, g in zip(tensors, found, strict=True) if g is not None}


@dataclass
class Walk:
    """`for k in walk:` takes a step and hands over k = 1, 2, ... `steps`, the model then being the attacked one."""

    space: Space
    inner_loss: InnerLoss
    steps: int
    rule: Rule
    total: Callable[[Tensor], float] = float
    losses: list[float] = field(default_factory=list)
    """the inner loss before each step taken so far, of the whole batch"""

    def __iter__(self) -> Iterator[int]:
        while len(self.losses) < self.steps:
            self.step()
            yield len(self.losses)

    def step(self) -> dict[str, Tensor]:
        """One inner step; its gradients by name."""
        loss = self.inner_loss(len(self.losses))
        grads = gradients(loss, self.space.moved)
        self.losses.append(self.total(loss.detach()))
        self.rule.step(grads)
        return grads

    @property
    def displacement(self) -> float:
        """|psi_k - psi_0| / |psi_0| over the moved tensors."""
        return self.space.displacement()

    def back(self) -> dict[str, Tensor]:
        """psi_0 - psi_k by name, float32 or finer: Reptile's gradient. A descent step along it goes towards psi_k."""
        start = self.space.start
        return {n: start[n].to(p.dtype) - p.detach() for n, p in self.rule.finest().items()}

    def slope(self, taken: Mapping[str, Tensor], part: Mapping[str, Tensor], outer: Mapping[str, Tensor]) -> float:
        """Derivative of an outer loss after one step in the weight of a part of the inner loss, by gradients.

        `taken`: what `step` returned; `part`: of that part alone, where the step began; `outer`: of the outer loss,
        after the step. `sgd` and `sgd_norm` only.
        """
        return self.rule.slope(taken, part, outer)
