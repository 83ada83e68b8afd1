"""A representation stage at the shape of an 8B model: what the pre-flight says, and what it takes on a CPU.

    python docs/benchmarks/eight_billion.py

RMU at block 7 of 32 in bfloat16, two steps, random weights: the blocks that the stage reads are in memory, the other
24 and the LM head are not. Needs 12 GB of RAM. One process predicts and another measures, as in preflight.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench import CPU, MB, Quiet, examples
from largest_model import SHAPES
from rmu_step import Options, Rmu
from transformers import AutoConfig

from unlearn_suite.engine.accounting import PeakMemory
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.engine.needs import needed_parameters
from unlearn_suite.engine.preflight import Family, StagePlan, estimate_stage
from unlearn_suite.engine.preflight.stand_in import FoldedTokenizer
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.models.outline import on_meta
from unlearn_suite.specs import Train

BLOCK = 7
ROLES = ("forget", "retain")


def outline() -> Any:
    shape = dict(SHAPES["Llama-3-8B"])
    return on_meta(AutoConfig.for_model(shape.pop("model_type"), **shape))


def options(args: argparse.Namespace) -> Train:
    return Train(steps=2, batch=args.batch, length=args.length, save_every=100, keep="off")


def predict(args: argparse.Namespace) -> dict[str, float]:
    before = PeakMemory(CPU).peak() or 0
    plan = StagePlan(lambda: Rmu(Options(block=BLOCK)), options(args), ROLES, examples(args.length))
    found = estimate_stage(Family(outline(), torch.bfloat16), None, plan)
    peak = found.resident_bytes["train"]
    return {
        "flops": found.flops,
        "peak": before + peak,
        "added": peak - found.weight_bytes,
        "weights": found.weight_bytes,
    }


def measure(args: argparse.Namespace) -> dict[str, float]:
    model = outline()
    shape = ModelShape.of(model)
    needed = needed_parameters(shape, Rmu(Options(block=BLOCK)).requirements(shape)) or ()
    for name in needed:
        path, _, leaf = name.rpartition(".")
        values = torch.empty(shape.tensors[name], dtype=torch.bfloat16).normal_(0, 0.02)
        setattr(model.get_submodule(path), leaf, torch.nn.Parameter(values))
    config = model.config
    rotary = model.get_submodule("model.rotary_emb")
    model.get_submodule("model").rotary_emb = type(rotary)(config)
    before = PeakMemory(CPU).peak() or 0
    with tempfile.TemporaryDirectory() as folder:
        job = StageJob(
            index=0,
            objective=Rmu(Options(block=BLOCK)),
            train=options(args),
            required_roles=ROLES,
            examples=examples(args.length),
            seed=0,
            artifacts=Path(folder) / "artifacts",
            checkpoints=Path(folder) / "checkpoints",
            services=Quiet(),
            on_step=lambda step, scalars: None,
        )
        cost = run_stage(model, FoldedTokenizer(None, config.vocab_size), job).cost
    peak = cost.peak_bytes["train"]
    weights = sum(p.numel() * p.element_size() for n, p in model.named_parameters() if n in needed)
    return {"flops": float(cost.flops or 0), "peak": peak, "added": peak - before, "weights": weights}


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--batch", type=int, default=1, help="examples per role and step")
    made.add_argument("--length", type=int, default=64, help="tokens per example")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--worker", help=argparse.SUPPRESS)
    args = made.parse_args()
    torch.set_num_threads(args.threads)
    if args.worker:
        print(json.dumps((predict if args.worker == "predict" else measure)(args)))
        return
    found = {}
    for worker in ("predict", "measure"):
        command = [sys.executable, *sys.argv, "--worker", worker]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        found[worker] = json.loads(done.stdout.splitlines()[-1])
    print("| Llama-3-8B shape, RMU at block 7 | predicted | measured | ratio |\n| --- | ---: | ---: | ---: |")
    for key, unit in (("weights", MB), ("added", MB), ("peak", MB), ("flops", 1e9)):
        said, took = (found[w][key] / unit for w in ("predict", "measure"))
        print(f"| {key}, {'GFLOP' if key == 'flops' else 'MB'} | {said:.0f} | {took:.0f} | **{said / took:.2f}** |")


if __name__ == "__main__":
    main()
