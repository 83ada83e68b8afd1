"""CIR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from unlearn_suite import Batch, Loss, LossObjective, ModelShape, Requirements, Scalars, StageContext

from ..cards.cir import CirConfig
from . import spy
from .base import nll
from .circuit_breakers import average
from .trained import chosen, step_by

MOST_ROWS = 4096


class Cir(LossObjective[CirConfig]):
    """cards/cir.py"""

    def requirements(self, shape: ModelShape) -> Requirements:
        blocks = self._blocks(shape)
        trained = chosen(shape, self.config, blocks)
        return Requirements(trained, reads=blocks[-1], logits=self.config.alpha > 0)

    def _blocks(self, shape: ModelShape) -> range:
        if self.config.blocks is not None:
            first, last = (shape.check_block(b) for b in self.config.blocks)
            return range(first, last + 1)
        return range(shape.n_blocks // 4, max(3 * shape.n_blocks // 4, shape.n_blocks // 4 + 1))

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        blocks = self._blocks(ctx.shape)
        self.last = blocks[-1]
        self.broken = ctx.shape.select("mlp_out", blocks)
        self.lengths = self._lengths()
        self.components = self._components() if self.config.components else {}

    def _texts(self) -> Iterator[Batch]:
        """The forget texts that everything about the base model is computed from."""
        examples = spy.some(self.ctx, "forget", self.config.texts)
        for batch in self.ctx.encode("cir", examples).chunks(self.ctx.train.batch):
            yield batch.to(self.ctx.device)
            self.ctx.views.clear()

    @torch.no_grad()
    def _lengths(self) -> dict[str, float]:
        """{weight: mean over tokens of |o_base|}: not of a batch, which may be cut."""
        totals, count = dict.fromkeys(self.broken, 0.0), 0
        for batch in self._texts():
            mask = batch.mask("content")
            for name, o in spy.outputs(self.ctx, self.ctx.reference, batch, self.broken, self.last).items():
                totals[name] += float(o.float().norm(dim=-1)[mask].sum())
            count += int(mask.sum())
        return {name: total / max(count, 1) for name, total in totals.items()}

    def _components(self) -> dict[str, tuple[Tensor, Tensor]]:
        """{weight: (V [in, k], U [out, k])}: top components of inputs and of output gradients on forget text."""
        weights = list(self.ctx.trainable)
        given: dict[str, list[Tensor]] = {name: [] for name in weights}
        grads: dict[str, list[Tensor]] = {name: [] for name in weights}
        for batch in self._texts():
            mask = batch.mask("content")

            def seen(name: str, x: Tensor, out: Tensor, mask: Tensor = mask) -> None:
                if out.requires_grad:
                    given[name].append(x.detach()[mask].float())
                    out.register_hook(lambda g: grads[name].append(g[mask].float()))

            with spy.watching(self.ctx, weights, seen):
                self._broken(batch).backward()
        for p in self.ctx.trainable.values():
            p.grad = None
        return {
            name: (top(given[name], self.config.components), top(grads[name], self.config.components))
            for name in weights
        }

    def _broken(self, f: Batch) -> Tensor:
        with torch.no_grad():
            base = spy.outputs(self.ctx, self.ctx.reference, f, self.broken, self.last)
        now = spy.outputs(self.ctx, self.ctx.policy, f, self.broken, self.last)
        return average([f.mean(aligned(now[name], base[name], self.lengths[name])) for name in self.broken])

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        parts, weights = {"forget": self._broken(batch["forget"])}, {"forget": 1.0}
        if self.config.alpha > 0:
            parts["retain"] = nll(self.ctx.policy, batch["retain"])
            weights["retain"] = self.config.alpha
        return Loss(parts, weights)

    def step(self, batch: Mapping[str, Batch]) -> Scalars:
        scalars = self.ctx.backward(self.loss, batch)
        for name, (v, u) in self.components.items():
            p = self.ctx.trainable[name]
            if p.grad is not None:
                g = collapsed(self.ctx.whole(p.grad), v, u, spy.is_transposed(self.ctx, name))
                p.grad = self.ctx.placed(g, p)
        return {**scalars, **(self.ctx.update() if self.config.rate is None else self._move(self.config.rate))}

    @torch.no_grad()
    def _move(self, length: float) -> Scalars:
        """A step of this length along the gradient, which is empty afterwards."""
        gradient = {name: p.grad for name, p in self.ctx.trainable.items() if p.grad is not None}
        norm = float(self.ctx.global_norm(list(gradient.values())))
        step_by(self.ctx, gradient, length / max(norm, 1e-12))
        for p in self.ctx.trainable.values():
            p.grad = None
        self.ctx.policy.clear()
        return {"grad_norm": norm}


def aligned(o: Tensor, base: Tensor, length: float) -> Tensor:
    """[B, T]: relu(<o, o_base>) / length^2."""
    return (o.float() * base.float()).sum(-1).clamp_min(0.0) / max(length**2, 1e-12)


def top(rows: list[Tensor], count: int) -> Tensor:
    """[D, k]: orthonormal top principal directions (not centred) of stacked rows [N, D]."""
    x = torch.cat(rows)[:MOST_ROWS]
    vectors: Tensor = torch.linalg.svd(x, full_matrices=False).Vh[: min(count, *x.shape)]
    return vectors.T.contiguous()


def collapsed(g: Tensor, v: Tensor, u: Tensor, transposed: bool) -> Tensor:
    """(I - U U^T) g (I - V V^T) for g [out, in]; `transposed`: g is [in, out]."""
    x = (g.T if transposed else g).float()
    x = x - u @ (u.T @ x)
    x = x - (x @ v) @ v.T
    return (x.T if transposed else x).to(g.dtype)
