"""What the benchmarks share: texts as batches, one fresh process per measurement, and two ways to run a step.

`run_plain` holds two full models and runs both at full depth with labels, as published code does; `run_engine`
runs the same equations as an objective of the suite. Each prints one JSON object for the parent process.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_suite.engine.accounting import FlopCount, PeakMemory
from unlearn_suite.engine.batch import Batch, RoleData, make_roles
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.specs import Example, Train

ROLES = ("forget", "retain")
EXAMPLES = 8
"""texts per role; they come again"""
WARM_UP = 4
"""steps at the beginning that are not timed: the first pass over the data at the usual batch, in which what is kept
is computed"""
MB = 2**20
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Measured:
    """Of one process. Seconds are wall-clock, `cpu_seconds` those of all its threads; memory in bytes."""

    losses: list[float]
    seconds: float
    cpu_seconds: float
    flops: float
    peak: int
    before: int

    @property
    def added(self) -> int:
        """Peak of the training above the process with one model loaded."""
        return self.peak - self.before


def parser(text: str) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    made = argparse.ArgumentParser(description=text.splitlines()[0])
    made.add_argument("model", help="folder of a causal language model")
    made.add_argument("--batch", type=int, default=2, help="examples per role and step")
    made.add_argument("--length", type=int, default=128, help="tokens per example")
    made.add_argument(
        "--steps",
        type=int,
        default=10,
        help=f"steps; the first {WARM_UP} are not timed, nor the last, whose FLOPs are counted",
    )
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--lr", type=float, default=5e-5)
    made.add_argument("--compile", action="store_true", help="`compile: true` in the engine's two ways")
    made.add_argument("--worker", help=argparse.SUPPRESS)
    return made


def load(args: argparse.Namespace) -> tuple[nn.Module, Any]:
    """The model in float32 and its tokenizer. The weights are all in memory, as on an accelerator: a file that
    is only mapped would make blocks that never run look free."""
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model, tokenizer


def examples(length: int) -> dict[str, list[Example]]:
    """Two roles of English text, each example long enough to fill `length` tokens."""
    text = resources.files("unlearn_suite.builtin").joinpath("data/general.txt").read_text(encoding="utf-8")
    words = text.split()
    size = 2 * length
    pieces = [" ".join(words[i : i + size]) for i in range(0, len(words) - size, size)]
    half = len(pieces) // 2
    parts = {"forget": pieces[:half], "retain": pieces[half : 2 * half]}
    return {role: [Example(f"{role}-{i}", t) for i, t in enumerate(found[:EXAMPLES])] for role, found in parts.items()}


def train_options(args: argparse.Namespace, keep: Literal["memory", "off"] = "off") -> Train:
    return Train(
        steps=args.steps,
        lr=args.lr,
        batch=args.batch,
        length=args.length,
        clip=None,
        save_every=10**6,
        keep=keep,
        compile=args.compile,
    )


class Plain:
    """Two models, a hook, full depth: how the published trainers read a model."""

    def __init__(self, model: nn.Module, block: int | None) -> None:
        self.model = model
        self.reference = copy.deepcopy(model).requires_grad_(False)
        self.block = block

    def hidden(self, model: nn.Module, batch: Batch) -> Tensor:
        """The output of `block`; the model runs whole, LM head and labels' loss included."""
        path = ModelShape.of(model).blocks_path
        seen: list[Tensor] = []
        hook = model.get_submodule(path)[self.block].register_forward_hook(  # type: ignore[index]
            lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        self.output(model, batch)
        hook.remove()
        return seen[0]

    def output(self, model: nn.Module, batch: Batch) -> Any:
        """What the model returns for tokens and labels; without autograd for the reference."""
        frozen = model is self.reference
        with torch.no_grad() if frozen else nullcontext():
            return model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.input_ids, use_cache=False
            )


def run_plain(
    args: argparse.Namespace,
    names: Sequence[str],
    loss: Callable[[Plain, Mapping[str, Batch]], Tensor],
    block: int | None = None,
    freeze: bool = False,
    prepare: Callable[[Plain, Mapping[str, RoleData]], None] = lambda plain, roles: None,
) -> None:
    """Train `names` with plain AdamW. `freeze`: gradients are allocated for them only, else for all tensors.

    `prepare` comes before the first step and is not timed. A loss without a gradient is only read.
    """
    model, tokenizer = load(args)
    memory = PeakMemory(CPU)
    before = memory.peak() or 0
    plain = Plain(model, block)
    parameters = dict(model.named_parameters())
    if freeze:
        model.requires_grad_(False)
    trained = [parameters[n].requires_grad_(True) for n in names]
    train = train_options(args)
    optimizer = torch.optim.AdamW(trained, lr=train.lr, weight_decay=0.0)
    roles = _roles(tokenizer, args)
    prepare(plain, roles)
    clock = Clock()
    count = FlopCount()
    losses = []
    for step in range(train.steps):
        batch = {role: data.batch(step, train.batch) for role, data in roles.items()}
        with count if step == train.steps - 1 else nullcontext():
            value = loss(plain, batch)
            if value.requires_grad:
                value.backward()
                optimizer.step()
                model.zero_grad()
        losses.append(float(value.detach()))
        clock.tick()
    _tell(Measured(losses, *clock.per_step(), float(count.flops), memory.peak() or 0, before))


def run_engine(args: argparse.Namespace, objective: Any) -> None:
    """The same, as a stage of the suite; worker `kept` keeps what the untrained model computes, in memory."""
    model, tokenizer = load(args)
    memory = PeakMemory(CPU)
    before = memory.peak() or 0
    clock = Clock()
    losses: list[float] = []

    def on_step(_: int, scalars: Mapping[str, float]) -> None:
        losses.append(scalars["loss"])
        clock.tick()

    with tempfile.TemporaryDirectory() as folder:
        job = StageJob(
            index=0,
            objective=objective,
            train=train_options(args, "memory" if args.worker == "kept" else "off"),
            required_roles=ROLES,
            examples=examples(args.length),
            seed=0,
            artifacts=Path(folder) / "artifacts",
            checkpoints=Path(folder) / "checkpoints",
            services=Quiet(),
            on_step=on_step,
        )
        count = _count_last_step(objective, args.steps)
        cost = run_stage(model, tokenizer, job).cost
    peak = max(cost.peak_bytes.values())
    _tell(Measured(losses, *clock.per_step(), float(count.flops), peak, before))


def _count_last_step(objective: Any, steps: int) -> FlopCount:
    """Count what the objective's last step runs."""
    count, step = FlopCount(), objective.step

    def counted(batch: Mapping[str, Batch]) -> Any:
        with count if objective.ctx.step_index == steps - 1 else nullcontext():
            return step(batch)

    objective.step = counted
    return count


class Quiet:
    """Services for objectives that need none."""

    def sample(self, *_: Any, **__: Any) -> list[list[str]]:
        raise NotImplementedError

    def memo(self, name: str, key: Any, build: Callable[[], Any]) -> Any:
        return build()

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)

    warn = say


class Clock:
    """Seconds between ticks, wall-clock and of the process's threads."""

    def __init__(self) -> None:
        self.ticks: list[tuple[float, float]] = []

    def tick(self) -> None:
        self.ticks.append((time.perf_counter(), time.process_time()))

    def per_step(self) -> tuple[float, float]:
        """Medians over the timed steps."""
        timed = self.ticks[WARM_UP - 1 : -1]
        steps = list(itertools.pairwise(timed))
        wall, cpu = ([b[i] - a[i] for a, b in steps] for i in (0, 1))
        return statistics.median(wall), statistics.median(cpu)


def _roles(tokenizer: Any, args: argparse.Namespace) -> dict[str, RoleData]:
    pad = tokenizer.pad_token_id or 0
    return make_roles(tokenizer, examples(args.length), length=args.length, seed=0, pad_id=pad)


def _tell(measured: Measured) -> None:
    print(json.dumps(vars(measured)))


def measure(worker: str, **options: Any) -> Measured:
    """Run this script's `worker` in a process of its own."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, *sys.argv, *words, "--worker", worker]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def largest_difference(a: Measured, b: Measured, at_most: float = 1e-5) -> float:
    """Largest relative difference of the losses, step by step; ends the program when it is too large."""
    worst = max(abs(x - y) / max(abs(x), 1e-30) for x, y in zip(a.losses, b.losses, strict=True))
    if worst > at_most:
        sys.exit(f"the losses differ by {worst:.1e}:\n{a.losses}\n{b.losses}")
    return worst


COMPARED = (
    "s/step: plain | engine | kept | throughput: engine | kept | by CPU time: engine | kept | "
    "GFLOP: plain | engine | kept | peak MB: plain | engine | kept | peak: engine | kept | "
    "added by training, MB: plain | engine | kept | loss differs by: engine | kept"
)


def compared(plain: Measured, ours: Measured, kept: Measured) -> list[str]:
    """The cells below `COMPARED`."""
    every, two = (plain, ours, kept), (ours, kept)
    return [
        *(f"{m.seconds:.2f}" for m in every),
        *(f"**{plain.seconds / m.seconds:.2f}x**" for m in two),
        *(f"{plain.cpu_seconds / m.cpu_seconds:.2f}x" for m in two),
        *(f"{m.flops / 1e9:.1f}" for m in every),
        *(f"{m.peak / MB:.0f}" for m in every),
        *(f"**{m.peak / plain.peak:.2f}x**" for m in two),
        *(f"{m.added / MB:.0f}" for m in every),
        *(f"{largest_difference(plain, m):.0e}" for m in two),
    ]


def conditions(args: argparse.Namespace) -> str:
    """One line: what was run on what."""
    cpu = next((x.split(":")[1].strip() for x in _cpuinfo() if x.startswith("model name")), platform.processor())
    return (
        f"{Path(args.model).name}, {args.batch} x {args.length} tokens per role, {args.steps} steps over "
        f"{EXAMPLES} texts per role (median of {args.steps - WARM_UP - 1} steps), float32, {args.threads} threads, "
        f"{'compiled, ' if args.compile else ''}{cpu}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def block_flops(model_config: Any, rows: int, tokens: int) -> tuple[int, int, int]:
    """FLOPs on `rows` x `tokens` of a Llama-like block: its linear maps, its attention, its down projection alone."""
    c = model_config
    width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    q, kv = c.num_attention_heads * width, c.num_key_value_heads * width
    matrices = 2 * c.hidden_size * q + 2 * c.hidden_size * kv + 3 * c.hidden_size * c.intermediate_size
    positions = rows * tokens
    return 2 * positions * matrices, 4 * positions * tokens * q, 2 * positions * c.hidden_size * c.intermediate_size
