"""One step of NPO, and of GradDiff with a KL retain term: the published two-model way against the engine.

    python docs/benchmarks/logprob_step.py MODEL_FOLDER

npo (arXiv:2404.05868): -(2 / beta) mean log sigmoid(-beta (log p(x) - log p_ref(x))) over forget texts, log p summed
over tokens, plus the mean next-token loss over retain tokens. graddiff-kl: minus the mean next-token loss over
forget tokens, plus the mean of KL(p_ref | p) over retain tokens.

plain: two full copies, both run whole with labels. engine: the same loss written over the two views. Both train
the same tensors, which alone get gradients: `all` of the model, or the MLP output matrices of the `last N` blocks.
engine: nothing kept from step to step. kept: what the untrained model computes kept in memory, when the data comes
again. Every number of a row is measured in this run, each way in a process of its own; the program ends with an
error when a loss of either differs by more than 1e-5.

floor: FLOPs that the equations need. Forward: blocks below the trained ones once per text, trained ones and LM head
once per text, and once more on the text that the reference reads; if values are kept, only the trained blocks and
the LM head, once more for the KL's second distribution. Backward: gradients of the trained matrices and of what lies
between them and the logits.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Literal

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
from torch.nn.functional import kl_div, logsigmoid
from transformers import AutoConfig

from unlearn_suite import Config, Loss, LossObjective, ModelShape, Requirements, losses
from unlearn_suite.engine.batch import Batch

BETA = 0.1
METHODS = ("npo", "graddiff-kl")


class Options(Config):
    method: Literal["npo", "graddiff-kl"]
    """which equations"""
    last: int
    """number of blocks, counted from the top, whose MLP output matrices are trained; 0 = train all tensors"""


def kl(reference: Tensor, policy: Tensor) -> Tensor:
    """[B, T] KL(reference | policy) of [B, T, V] logits."""
    p, q = reference.float().log_softmax(-1), policy.float().log_softmax(-1)
    return kl_div(q, p, log_target=True, reduction="none").sum(-1)


class LogProbs(LossObjective[Options]):
    """The equations over the views."""

    def requirements(self, shape: ModelShape) -> Requirements:
        last = self.config.last
        blocks = range(shape.n_blocks - last, shape.n_blocks)
        names = shape.select("mlp_out", blocks) if last else tuple(shape.tensors)
        return Requirements(names, reads=-1, logits=True)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        policy, reference = self.ctx.policy, self.ctx.reference
        forget, retain = batch["forget"], batch["retain"]
        if self.config.method == "npo":
            ratio = forget.sum_per_example(policy.token_logprobs(forget) - reference.token_logprobs(forget))
            parts = {
                "forget": forget.mean_examples(-2 / BETA * logsigmoid(-BETA * ratio)),
                "retain": -retain.mean(policy.token_logprobs(retain)),
            }
        else:
            kl_bt = reference.per_token(retain, lambda p, _, q: losses.kl(p, q), against=policy)
            parts = {"forget": forget.mean(policy.token_logprobs(forget)), "retain": retain.mean(kl_bt)}
        return Loss(parts)


def plain_npo(plain: Plain, batch: Mapping[str, Batch]) -> Tensor:
    """The same over two models, with the labels' loss that the model itself returns where it is the one needed."""
    forget = batch["forget"]
    ratio = logprobs(plain, plain.model, forget) - logprobs(plain, plain.reference, forget)
    steer = (-2 / BETA * logsigmoid(-BETA * ratio)).mean()
    kept: Tensor = plain.output(plain.model, batch["retain"]).loss
    return steer + kept


def plain_graddiff_kl(plain: Plain, batch: Mapping[str, Batch]) -> Tensor:
    """All rows are full, so plain means are the means over tokens."""
    forget, retain = batch["forget"], batch["retain"]
    against: Tensor = plain.output(plain.model, forget).loss
    reference, policy = (plain.output(model, retain).logits for model in (plain.reference, plain.model))
    return kl(reference[:, :-1], policy[:, :-1]).mean() - against


def logprobs(plain: Plain, model: torch.nn.Module, batch: Batch) -> Tensor:
    """[B] log-probability of each text, from the whole logits."""
    logits = plain.output(model, batch).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.input_ids[:, 1:], reduction="none")
    return -nll.sum(1)


def names(args: argparse.Namespace, last: int) -> list[str]:
    """The tensors to train, in the order of the model."""
    if not last:
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(args.model))
        return [name for name, _ in model.named_parameters()]
    n = AutoConfig.from_pretrained(args.model).num_hidden_layers
    return [f"model.layers.{i}.mlp.down_proj.weight" for i in range(n - last, n)]


def floor(args: argparse.Namespace, method: str, last: int, kept: bool) -> float:
    """FLOPs that the equations need: see the beginning."""
    config = AutoConfig.from_pretrained(args.model)
    linear, attention, down = block_flops(config, args.batch, args.length)
    head = 2 * args.batch * (args.length - 1) * config.hidden_size * config.vocab_size
    n = config.num_hidden_layers
    trained = last or n
    below = 0 if kept else n - trained
    forward = 2 * (below + trained) * (linear + attention) + 2 * head
    if not kept:
        forward += trained * (linear + attention) + head
    elif method == "graddiff-kl":
        forward += head
    if not last:  # gradients of every matrix and of every input but the embeddings'
        return float(forward + 2 * (n * (2 * linear + 2 * attention) + 2 * head))
    return float(forward + 2 * (trained * down + (trained - 1) * (linear + 2 * attention) + head))


def row(args: argparse.Namespace, method: str, last: int) -> str:
    plain, ours, kept = (measure(worker, methods=method, last=last) for worker in ("plain", "engine", "kept"))
    need = [floor(args, method, last, keep) for keep in (False, True)]
    cells = [
        method,
        f"last {last}" if last else "all",
        *compared(plain, ours, kept),
        *(f"{n / 1e9:.1f}" for n in need),
        *(f"{m.flops / n:.3f}" for m, n in zip((ours, kept), need, strict=True)),
    ]
    return f"| {' | '.join(cells)} |"


HEAD = f"loss | trained | {COMPARED} | floor GFLOP, engine | kept | engine / floor | kept / floor"


def main() -> None:
    made = parser(__doc__ or "")
    # At 5e-5 AdamW makes rounding errors of the first step's gradients visible in the losses after it.
    made.set_defaults(lr=1e-6)
    made.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    made.add_argument("--last", type=int, nargs="+", default=[3, 10, 0], help="blocks trained (0: the whole model)")
    args = made.parse_args()
    method, last = args.methods[0], args.last[0]
    if args.worker in ("engine", "kept"):
        run_engine(args, LogProbs(Options(method=method, last=last)))
    elif args.worker == "plain":
        loss = {"npo": plain_npo, "graddiff-kl": plain_graddiff_kl}[method]
        run_plain(args, names(args, last), loss, freeze=True)
    else:
        print(f"{conditions(args)}\n\n| {HEAD} |\n|{' ---: |' * len(HEAD.split('|'))}", flush=True)
        for method in args.methods:
            for last in args.last:
                print(row(args, method, last), flush=True)


if __name__ == "__main__":
    main()
