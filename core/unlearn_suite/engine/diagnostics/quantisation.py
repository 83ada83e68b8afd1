"""Would rounding to 4 bits undo the training? How far the trained matrices moved, in bins of that rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ..context import StageContext
from ..objective import Scalars
from ..shards import whole
from .detector import Alarm, Bench, Detector

BITS = 4


class Quantisation(Detector):
    """Round to nearest, one scale per output channel, in the bins of the weights w_0 that the stage began with:

        s_i = max_j |w_0,ij| / (2^(BITS - 1) - 1),   bin(w_ij) = round(w_ij / s_i)

    Readings: the largest |w - w_0| / (s / 2), and of the entries that changed the share that changed their bin. The
    matrices are those of the blocks, as the attack `quantise` takes them; adapters count as merged. A share is small
    in the first steps of every stage, so the alarm is for the end. Source: arXiv:2410.16454; the level is ours.
    """

    alarms = {  # noqa: RUF012
        "diag_end_bin_changed": Alarm("rounding the weights to 4 bits would undo the training", at_least=0.01)
    }

    def measure(self, bench: Bench) -> Scalars:
        largest, crossed, changed = 0.0, 0, 0
        for before, now in _matrices(bench.ctx):
            scale = before.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / (2 ** (BITS - 1) - 1)
            largest = max(largest, float(((now - before).abs() / (scale / 2)).max()))
            crossed += int(((now / scale).round() != (before / scale).round()).sum())
            changed += int((now != before).sum())
        return {"diag_bin_move": largest, **({"diag_bin_changed": crossed / changed} if changed else {})}

    def close(self, bench: Bench) -> Scalars:
        return {f"diag_end_{name.removeprefix('diag_')}": value for name, value in self.measure(bench).items()}


def _matrices(ctx: StageContext) -> Iterator[tuple[Tensor, Tensor]]:
    """(before, now) of each matrix in a block that is trained, whole, [out, in] float32."""
    model = ctx.views.replay.model
    for name, parameter in ctx.trainable.items():
        path, _, adapter = name.rpartition(".")[0].partition(".lora_")
        if ctx.shape.block_of(name) is None or parameter.ndim != 2 or adapter.startswith("B"):
            continue
        if adapter:
            layer: Any = model.get_submodule(path)
            module = layer.get_base_layer()
            before = whole(module.weight.detach())
            now = before + _product(layer, _turned(module)).to(before.dtype)
        else:
            module = model.get_submodule(path)
            before, now = whole(ctx.views.original[name]), whole(parameter.detach())
        yield (before.float().T, now.float().T) if _turned(module) else (before.float(), now.float())


def _product(layer: Any, turned: bool) -> Tensor:
    """What merging an adapter adds to its matrix, in the matrix's shape."""
    a, b = (whole(layer.get_parameter(f"lora_{x}.default.weight").detach()) for x in "AB")
    product: Tensor = layer.scaling["default"] * (b @ a)
    return product.T if turned else product


def _turned(module: nn.Module) -> bool:
    """Whether its matrix is [in, out], as GPT-2's are."""
    return type(module).__name__ == "Conv1D"
