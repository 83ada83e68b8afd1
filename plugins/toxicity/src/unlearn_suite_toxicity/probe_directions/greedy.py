"""A loss term that trains some parameters only, though it depends on more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def confined(term: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """A scalar with the value of `term` whose gradient is that of `term` for `parameters` and 0 for all others.

    It is linear in the parameters, term + sum g.(p - p), so that it can be added to any loss.
    """
    grads = torch.autograd.grad(term, list(parameters), retain_graph=True, allow_unused=True)
    result = term.detach()
    for parameter, grad in zip(parameters, grads, strict=True):
        if grad is not None:
            result = result + (grad * (parameter - parameter.detach())).sum().to(result.dtype)
    return result
