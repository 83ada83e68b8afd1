"""One RMU step by block: the published two-model way against the engine.

    python docs/benchmarks/rmu_step.py MODEL_FOLDER

The equations (arXiv:2403.03218): h is the output of block b, c u a fixed random vector, L = mean over forget
tokens of |h - c u|^2 / d + a times the mean over retain tokens of |h - h_ref|^2 / d. The MLP output matrices
of the blocks b-2 to b are trained with AdamW.

plain: two full copies, full depth and LM head with labels three times, gradients of every tensor below block b.
engine: the same loss written over the two views, nothing kept from step to step. kept: the same with what the
untrained model computes kept in memory, when the data comes again. Every number of a row is measured in this run, each
way in a process of its own; the program ends with an error when a loss of either differs by more than 1e-5.

floor: FLOPs that the equations need. For engine: blocks below b-2 once per text, blocks b-2 to b twice on retain
text and once on forget text, gradients of the three matrices and of what lies between. For kept: blocks b-2 to b once
per text, and the gradients.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import torch
from bench import (
    COMPARED,
    Plain,
    block_flops,
    compared,
    conditions,
    measure,
    parser,
    run_engine,
    run_plain,
)
from torch import Tensor
from transformers import AutoConfig

from unlearn_suite import Config, Loss, LossObjective, ModelShape, Requirements
from unlearn_suite.engine.batch import Batch

WIDTH = 3
COEFFICIENT = 20.0
ALPHA = 100.0


class Options(Config):
    block: int
    """block whose output is moved"""


def trained_blocks(block: int) -> range:
    return range(max(block - WIDTH + 1, 0), block + 1)


def target(size: int) -> Tensor:
    """[D] c u: entries uniform in [0, 1), scaled to length c."""
    u = torch.rand(size, generator=torch.Generator().manual_seed(0))
    return COEFFICIENT * u / u.norm()


class Rmu(LossObjective[Options]):
    """The equations over the views."""

    def requirements(self, shape: ModelShape) -> Requirements:
        block = self.config.block
        return Requirements(shape.select("mlp_out", trained_blocks(block)), reads=block)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        forget, retain, block = batch["forget"], batch["retain"], self.config.block
        h = self.ctx.policy.hidden(forget, [block])[block]
        r, r0 = (view.hidden(retain, [block])[block] for view in (self.ctx.policy, self.ctx.reference))
        parts = {
            "forget": forget.mean((h - target(h.shape[-1])).square().mean(-1)),
            "retain": retain.mean((r - r0).square().mean(-1)),
        }
        return Loss(parts, {"retain": ALPHA})


def plain_loss(plain: Plain, batch: Mapping[str, Batch]) -> Tensor:
    """The same over two models. All rows are full, so the mean over all positions but the first is the mean."""
    h = plain.hidden(plain.model, batch["forget"])
    r, r0 = (plain.hidden(model, batch["retain"]) for model in (plain.model, plain.reference))
    forget = (h - target(h.shape[-1]))[:, 1:].square().mean()
    return forget + ALPHA * (r - r0)[:, 1:].square().mean()


def floor(args: argparse.Namespace, block: int, kept: bool) -> float:
    linear, attention, down = block_flops(AutoConfig.from_pretrained(args.model), args.batch, args.length)
    trained = len(trained_blocks(block))
    below = block + 1 - trained
    forward = (2 * trained if kept else 2 * below + 3 * trained) * (linear + attention)
    backward = 2 * (trained * down + (trained - 1) * (linear + 2 * attention))
    return float(forward + backward)


def row(args: argparse.Namespace, block: int) -> str:
    plain, ours, kept = (measure(worker, blocks=block) for worker in ("plain", "engine", "kept"))
    need = [floor(args, block, keep) for keep in (False, True)]
    cells = [
        str(block),
        *compared(plain, ours, kept),
        *(f"{n / 1e9:.1f}" for n in need),
        *(f"{m.flops / n:.3f}" for m, n in zip((ours, kept), need, strict=True)),
    ]
    return f"| {' | '.join(cells)} |"


HEAD = f"block | {COMPARED} | floor GFLOP, engine | kept | engine / floor | kept / floor"


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--blocks", type=int, nargs="+", default=[3, 7, 15, 22, 28])
    args = made.parse_args()
    block = args.blocks[0]
    if args.worker in ("engine", "kept"):
        run_engine(args, Rmu(Options(block=block)))
    elif args.worker == "plain":
        shape_blocks = trained_blocks(block)
        names = [f"model.layers.{i}.mlp.down_proj.weight" for i in shape_blocks]
        run_plain(args, names, plain_loss, block)
    else:
        print(f"{conditions(args)}\n\n| {HEAD} |\n|{' ---: |' * len(HEAD.split('|'))}", flush=True)
        for block in args.blocks:
            print(row(args, block), flush=True)


if __name__ == "__main__":
    main()
