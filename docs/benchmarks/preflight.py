"""What the pre-flight says of a stage against what the stage then takes: FLOPs and peak memory.

    python docs/benchmarks/preflight.py MODEL_FOLDER

Each row is a real stage on the CPU. One process predicts it, without the weights; another runs it and counts the FLOPs
of every step, and the engine's accounts give the memory that the whole process has resident at most (interpreter,
libraries and weights included). "Added" is the peak above the process with the model loaded: what training itself
takes. The prediction for a process is what is predicted of torch's memory plus what the predicting process itself has
resident afterwards, libraries that the stage needs being loaded. Ratios are predicted / measured.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from bench import MB, Quiet, conditions, parser
from logprob_step import LogProbs
from logprob_step import Options as LogProbOptions
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from unlearn_suite.engine.accounting import FlopCount
from unlearn_suite.engine.batch import Batch
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.engine.preflight import Family, StagePlan, estimate_stage
from unlearn_suite.specs import Example, Train
from unlearn_suite.worker.estimate.process import resident
from unlearn_suite_knowledge.cosine_rmu.config import CosineRmuConfig
from unlearn_suite_knowledge.cosine_rmu.objective import CosineRmu
from unlearn_suite_toxicity.probe_directions.config import ProbeDirectionsConfig
from unlearn_suite_toxicity.probe_directions.objective import ProbeDirections

STEPS = 6
ROLES = ("forget", "retain")


@dataclass(frozen=True)
class Case:
    """One row."""

    method: str
    objective: Callable[[], Any]
    batch: int = 4
    length: int = 128
    train: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fp32"

    @property
    def name(self) -> str:
        extra = ", ".join(f"{k} {v}" if not isinstance(v, bool) else k for k, v in self.train.items())
        return f"{self.method}, {self.batch} x {self.length}, {self.precision}{', ' + extra if extra else ''}"

    @property
    def options(self) -> Train:
        return Train(steps=STEPS, batch=self.batch, length=self.length, save_every=10**6, lr=1e-5, **self.train)

    @property
    def dtype(self) -> torch.dtype:
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[self.precision]


def rmu() -> Any:
    return CosineRmu(CosineRmuConfig(meta="none"))


def relearn() -> Any:
    return CosineRmu(CosineRmuConfig(inner_steps=2))


def relearn_rep() -> Any:
    return CosineRmu(CosineRmuConfig(inner_loss="rep"))


def probes() -> Any:
    return ProbeDirections(ProbeDirectionsConfig(source="static"))


def npo(last: int) -> Callable[[], Any]:
    return lambda: LogProbs(LogProbOptions(method="npo", last=last))


def graddiff_kl() -> Any:
    return LogProbs(LogProbOptions(method="graddiff-kl", last=3))


CASES = [
    Case("cosine-rmu, no attack", rmu, 2, 128),
    Case("cosine-rmu, no attack", rmu, 32, 32),
    Case("cosine-rmu, no attack", rmu, 8, 256),
    Case("cosine-rmu, no attack", rmu, 8, 256, {"micro_batch": 2}),
    Case("cosine-rmu, no attack", rmu, 8, 256, {"recompute": True}),
    Case("cosine-rmu, no attack", rmu, 8, 256, precision="bf16"),
    Case("cosine-rmu, attack on logits", relearn, 2, 64),
    Case("cosine-rmu, attack on activations", relearn_rep, 4, 128),
    Case("probe-directions", probes, 4, 64),
    Case("npo, last 10 blocks", npo(10), 4, 128),
    Case("npo, last 10 blocks", npo(10), 4, 256, {"lora": {"rank": 16}, "micro_batch": 2}),
    Case("npo, all tensors", npo(0), 2, 128),
    Case("npo, all tensors", npo(0), 2, 128, precision="bf16"),
    Case("graddiff-kl, last 3 blocks", graddiff_kl, 4, 128),
]


def texts(length: int) -> dict[str, list[Example]]:
    """64 examples per role of words in random order, each long enough to fill `length` tokens. Few words, and none in
    two roles, so that a probe can tell them apart."""
    text = resources.files("unlearn_suite.builtin").joinpath("data/general.txt").read_text(encoding="utf-8")
    words, draw = sorted(set(text.split()))[:60], random.Random(0)
    return {
        role: [Example(f"{role}-{i}", " ".join(draw.choices(words[n :: len(ROLES)], k=2 * length))) for i in range(64)]
        for n, role in enumerate(ROLES)
    }


def predict(args: argparse.Namespace, case: Case) -> dict[str, float]:
    """Without the weights."""
    config = AutoConfig.from_pretrained(args.model)
    with torch.device("meta"):
        full = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    before = resident()
    plan = StagePlan(case.objective, case.options, ROLES, texts(case.length))
    family = Family(full, case.dtype)
    found = estimate_stage(family, tokenizer, plan)
    peak = max(found.resident_bytes["setup"], found.resident_bytes["train"])
    if found.basis != "traced":
        print(f"{case.name}: {found.note}", file=sys.stderr)
    process, weights = resident(), family.weight_bytes()
    peak += process + weights - found.weight_bytes
    return {"flops": found.flops, "peak": peak, "added": peak - before - weights}


def measure(args: argparse.Namespace, case: Case) -> dict[str, float]:
    """The stage itself. The weights are all in memory: a file that is only mapped would make blocks look free."""
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=case.dtype).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    before = resident()  # what the loading has freed is given back: it is not what is measured
    objective, counts = case.objective(), []
    step = objective.step

    def counted(batch: Mapping[str, Batch]) -> Any:
        counts.append(FlopCount())
        with counts[-1]:
            return step(batch)

    objective.step = counted
    with tempfile.TemporaryDirectory() as folder:
        job = StageJob(
            index=0,
            objective=objective,
            train=case.options,
            required_roles=ROLES,
            examples=texts(case.length),
            seed=0,
            artifacts=Path(folder) / "artifacts",
            checkpoints=Path(folder) / "checkpoints",
            services=Quiet(),
            on_step=lambda step, scalars: None,
        )
        cost = run_stage(model, tokenizer, job).cost
    peak = max(cost.peak_bytes["setup"], cost.peak_bytes["train"])
    return {"flops": float(sum(c.flops for c in counts)), "peak": peak, "added": peak - before}


def in_process(worker: str, index: int) -> dict[str, float]:
    command = [sys.executable, *sys.argv, "--case", str(index), "--worker", worker]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{worker} of row {index} ended with {done.returncode}\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(index: int, case: Case) -> str:
    said, took = in_process("predict", index), in_process("measure", index)
    cells = [case.name]
    for what, unit in (("flops", 1e9), ("peak", MB), ("added", MB)):
        cells += [f"{said[what] / unit:.0f}", f"{took[what] / unit:.0f}", f"**{said[what] / took[what]:.2f}**"]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "stage | GFLOP predicted | counted | ratio | peak MB predicted | measured | ratio | "
    "added MB predicted | measured | ratio"
)


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--case", type=int, nargs="+", help="only these rows, counted from 0")
    args = made.parse_args()
    args.steps = STEPS
    chosen = range(len(CASES)) if args.case is None else args.case
    if args.worker:
        torch.set_num_threads(args.threads)
        work = predict if args.worker == "predict" else measure
        print(json.dumps(work(args, CASES[chosen[0]])))
        return
    print(f"{conditions(args)}\n\n| {HEAD} |\n| --- |{' ---: |' * (len(HEAD.split('|')) - 1)}", flush=True)
    for index in chosen:
        print(row(index, CASES[index]), flush=True)


if __name__ == "__main__":
    main()
