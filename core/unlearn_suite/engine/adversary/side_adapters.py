"""Fresh low-rank adapters on every linear map of the blocks, for the time of an attack.

They are two parameters on the linear module and a forward hook, not a wrapper: no tensor of the model changes
its name, so the views' parameter substitution goes on working. `B` starts at zero: a pass with the starting
values substituted is the model without adapters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import PlanError
from ..replay import Replay

A_NAME, B_NAME = "attack_a", "attack_b"


@contextmanager
def side_adapters(replay: Replay, rank: int, generator: torch.Generator) -> Iterator[dict[str, nn.Parameter]]:
    """{name: parameter} of the adapters, in the weights' dtype; every trace is gone on the way out.

    The update of a map is x A^T B^T, A [rank, in] uniform within 1/sqrt(in), B [out, rank] zero. Raises
    `PlanError` when the blocks have no linear map.
    """
    linear = _linear_maps(replay)
    if not linear:
        raise PlanError("the blocks have no linear map an adapter could stand on", code="lora-tensor")
    found: dict[str, nn.Parameter] = {}
    with ExitStack() as stack:
        stack.enter_context(replay.eager())  # compiled code does not see hooks that are added later
        for path, module in linear.items():
            a, b = _pair(module, rank, generator)
            module.register_parameter(A_NAME, a)
            stack.callback(delattr, module, A_NAME)
            module.register_parameter(B_NAME, b)
            stack.callback(delattr, module, B_NAME)
            stack.callback(module.register_forward_hook(_add).remove)
            found |= {f"{path}.{A_NAME}": a, f"{path}.{B_NAME}": b}
        stack.enter_context(replay.lent(found))
        yield found


def _linear_maps(replay: Replay) -> dict[str, nn.Module]:
    """nn.Linear and GPT-2's Conv1D inside the blocks; not the halves of adapters that are trained themselves."""
    prefix = f"{replay.shape.blocks_path}."
    return {
        path: module
        for path, module in replay.model.named_modules()
        if path.startswith(prefix) and ".lora_" not in path and _is_linear(module)
    }


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _pair(module: nn.Module, rank: int, generator: torch.Generator) -> tuple[nn.Parameter, nn.Parameter]:
    weight = module.get_parameter("weight")
    outputs, inputs = weight.shape if isinstance(module, nn.Linear) else weight.shape[::-1]
    drawn = (2.0 * torch.rand(rank, inputs, generator=generator) - 1.0) / math.sqrt(inputs)
    drawn = drawn.to(weight.device, weight.dtype)
    return nn.Parameter(drawn), nn.Parameter(drawn.new_zeros(outputs, rank))


def _add(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
    a, b = getattr(module, A_NAME), getattr(module, B_NAME)
    added: Tensor = given[0] @ a.T @ b.T
    return output + added
