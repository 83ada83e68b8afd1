"""One step of the three plugins of docs/examples: a hand-written loop against the engine, and how long their code is.

    python docs/benchmarks/external_plugins.py MODEL_FOLDER

plain: the same equations as a user would write them: two full models (one where nothing else is needed), run whole,
plain AdamW; salun masks gradients by hooks on the tensors. engine: the plugin as it is, nothing kept from step to
step. kept: the same with what the untrained model computes kept in memory, when the data comes again. Every
number of a row is measured in this run, each way in a process of its own; the program ends with an error when a loss of
either differs by more than 1e-4 (of leace: the length of the difference it erases). What comes before the first
step (salun's mask) and after the last (leace's edit, one matrix inverse) is timed for neither.

lines: of code, without blank lines, comments and docstrings. plugin: the whole file, options and hook included. plain:
the method's own functions, and with the loop around them (models, hooks, optimizer).
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from bench import Measured, Plain, conditions, largest_difference, measure, parser, run_engine, run_plain
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from transformers import AutoConfig, AutoModelForCausalLM

from unlearn_suite.engine.batch import Batch, RoleData

EXAMPLES = Path(__file__).parents[1] / "examples"
CLASSES = {"salun": "SalUn", "scrub": "Scrub", "leace": "Leace"}
AT_MOST = 1e-4
Batches = Mapping[str, Batch]


def scrub(plain: Plain, batch: Batches) -> Tensor:
    """All rows are full, so plain means are the means over tokens."""
    distance = {}
    for role, b in batch.items():
        teacher, student = (plain.output(model, b) for model in (plain.reference, plain.model))
        p, q = (out.logits[:, :-1].float().log_softmax(-1) for out in (teacher, student))
        distance[role] = kl_div(q, p, log_target=True, reduction="none").sum(-1).mean()
    nll: Tensor = student.loss  # of the last role, retain
    return distance["retain"] + nll - distance["forget"]


@dataclass
class Salun:
    """Mask of the largest gradients, then random labels."""

    names: list[str]
    wrong: Tensor = field(init=False)

    def prepare(self, plain: Plain, roles: Mapping[str, RoleData]) -> None:
        vocabulary = plain.model.config.vocab_size
        tokens = torch.arange(vocabulary)
        shift = torch.randint(1, vocabulary, (vocabulary,), generator=torch.Generator().manual_seed(0))
        self.wrong = (tokens + shift) % vocabulary
        for chunk in roles["forget"].chunks(2):
            plain.output(plain.model, chunk).loss.backward()
        parameters = dict(plain.model.named_parameters())
        size = {name: parameters[name].grad.abs() for name in self.names}
        everything = torch.cat([s.flatten() for s in size.values()])
        gamma = everything.kthvalue(round(len(everything) / 2)).values
        for name, s in size.items():
            parameters[name].register_hook(lambda gradient, mask=s >= gamma: gradient * mask)
        plain.model.zero_grad()

    def loss(self, plain: Plain, batch: Batches) -> Tensor:
        forget = batch["forget"]
        logits = plain.output(plain.model, forget).logits[:, :-1].float()
        against = cross_entropy(logits.flatten(0, 1), self.wrong[forget.input_ids[:, 1:]].flatten())
        right: Tensor = plain.output(plain.model, batch["retain"]).loss
        return against + right


@dataclass
class Leace:
    """Sums over the outputs of a block; the edit after the last step is not timed."""

    count: dict[str, int] = field(default_factory=dict)
    sum: dict[str, Tensor] = field(default_factory=dict)
    square: Tensor | float = 0.0

    @torch.no_grad()
    def loss(self, plain: Plain, batch: Batches) -> Tensor:
        for role, b in batch.items():
            x = plain.hidden(plain.model, b)[:, 1:].flatten(0, 1).double()
            self.count[role] = self.count.get(role, 0) + len(x)
            self.sum[role] = self.sum.get(role, 0.0) + x.sum(0)
            self.square = self.square + x.T @ x
        return (self.sum["forget"] / self.count["forget"] - self.sum["retain"] / self.count["retain"]).norm()


OWN_CODE: Mapping[str, Any] = {"scrub": scrub, "salun": Salun, "leace": Leace}


def run_by_hand(args: argparse.Namespace, method: str, tensors: str) -> None:
    """The hand-written loop, on the tensors that the plugin trains."""
    names = list(plugin(method, tensors, args)[1])
    if method == "salun":
        own = Salun(names)
        run_plain(args, names, own.loss, freeze=True, prepare=own.prepare)
    elif method == "leace":
        run_plain(args, names, Leace().loss, block=_blocks(args) // 2, freeze=True)
    else:
        run_plain(args, names, scrub, freeze=True)


def plugin(method: str, tensors: str, args: argparse.Namespace) -> tuple[Any, tuple[str, ...]]:
    """The objective, and the tensors it trains."""
    from unlearn_suite import ModelShape

    module = _module(method)
    made = getattr(module, CLASSES[method])(module.Options(**({} if method == "leace" else {"tensors": tensors})))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(args.model))
    return made, made.requirements(ModelShape.of(model)).trainable


def _module(method: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(method, EXAMPLES / f"{method}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _blocks(args: argparse.Namespace) -> int:
    return int(AutoConfig.from_pretrained(args.model).num_hidden_layers)


def lines(source: str) -> int:
    """Lines of code, without blank lines, comments and docstrings."""
    tree = ast.parse(source)
    text = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    numbered = enumerate(source.splitlines(), 1)
    return sum(1 for n, line in numbered if n not in text and line.strip() and not line.strip().startswith("#"))


def lengths(method: str) -> tuple[int, int, int]:
    """Lines of the plugin, of the method by hand, and of that with the loop around it."""
    own = lines(inspect.getsource(OWN_CODE[method]))
    around: tuple[Callable[..., Any] | type, ...] = (Plain, run_plain)
    with_loop = own + sum(lines(inspect.getsource(part)) for part in around)
    return lines((EXAMPLES / f"{method}.py").read_text(encoding="utf-8")), own, with_loop


def row(method: str, trained: str, tensors: str) -> str:
    plain, ours, kept = (measure(way, methods=method, tensors=tensors) for way in ("plain", "engine", "kept"))
    two: tuple[Measured, Measured] = (ours, kept)
    cells = [
        method,
        trained,
        *map(str, lengths(method)),
        *(f"{m.seconds:.3f}" for m in (plain, ours, kept)),
        *(f"**{plain.seconds / m.seconds:.2f}x**" for m in two),
        *(f"{plain.cpu_seconds / m.cpu_seconds:.2f}x" for m in two),
        *(f"{m.flops / 1e9:.2f}" for m in (plain, ours, kept)),
        *(f"{largest_difference(plain, m, AT_MOST):.0e}" for m in two),
    ]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "method | trained | lines: plugin | by hand | by hand with the loop | s/step: plain | engine | kept | "
    "throughput: engine | kept | by CPU time: engine | kept | GFLOP: plain | engine | kept | "
    "values differ by: engine | kept"
)


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--methods", choices=list(CLASSES), help=argparse.SUPPRESS)
    made.add_argument("--tensors", default=".*", help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.worker == "plain":
        run_by_hand(args, args.methods, args.tensors)
    elif args.worker:
        run_engine(args, plugin(args.methods, args.tensors, args)[0])
    else:
        last = _blocks(args) - 1
        some = rf".*\.({'|'.join(str(i) for i in range(last - 2, last + 1))})\.mlp\.down_proj\.weight"
        print(f"{conditions(args)}\n\n| {HEAD} |\n|{' ---: |' * len(HEAD.split('|'))}", flush=True)
        for method in ("scrub", "salun"):
            for trained, tensors in (("all", ".*"), ("MLP outputs of the last 3 blocks", some)):
                print(row(method, trained, tensors), flush=True)
        print(row("leace", "outputs up to the middle block", ""), flush=True)


if __name__ == "__main__":
    main()
