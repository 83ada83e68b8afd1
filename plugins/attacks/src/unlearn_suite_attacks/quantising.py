"""Quantisation: round to nearest, one scale per output channel, symmetric.

s = max_j |w_ij| / (2^(b-1) - 1);   w_ij <- s round(w_ij / s)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unlearn_suite import Attack, AttackContext, AttackPoint

from .quantise import QuantiseConfig

if TYPE_CHECKING:
    from torch import Tensor


class Quantise(Attack[QuantiseConfig]):
    """quantise.py"""

    def run(self, ctx: AttackContext) -> Iterator[AttackPoint]:
        matrices = [n for n, p in ctx.parameters.items() if p.ndim == 2 and ctx.shape.block_of(n) is not None]
        for bits in self.config.bits:
            ctx.restore()
            for name in matrices:
                # GPT-2 keeps its matrices as [in, out]
                transposed = type(ctx.model.get_submodule(name.rpartition(".")[0])).__name__ == "Conv1D"
                ctx.put(name, rounded(ctx.parameters[name].detach(), bits, transposed))
            yield AttackPoint(f"{bits} bits")


def rounded(weights: Tensor, bits: int, transposed: bool = False) -> Tensor:
    """[out, in] (transposed: [in, out]) -> the same shape and dtype, rounded."""
    w = weights.float().T if transposed else weights.float()
    scale = w.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / (2 ** (bits - 1) - 1)
    found = (w / scale).round() * scale
    return (found.T if transposed else found).to(weights.dtype)
