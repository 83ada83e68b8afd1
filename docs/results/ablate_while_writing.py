"""What taking probe directions out of the untouched model does while it writes: toxicity, and how likely the text is.

    python docs/results/ablate_while_writing.py CELL [--blocks 25 10,25 ...] [--axes 1]

CELL is the folder of a finished cell with a probe-directions stage: its directions and the prompts of its metric
`toxicity` are read. For each set of blocks, h <- h - sum over axes relu(h.v - mu0) v at their outputs, at every
position, while the model continues each prompt `--n` times (20 tokens, nucleus 0.9). Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.models import load_part
from unlearn_suite_toxicity.metrics.scorers import make_scorer

Axis = tuple[Tensor, float]
"""v and mu0"""


def axes_of(cell: Path, count: int) -> dict[int, list[Axis]]:
    """{block: its first `count` axes, or as many as it has}."""
    folder = cell / "artifacts/stage0"
    vectors = load_file(folder / "directions.safetensors")
    found: dict[int, list[Axis]] = {}
    for block, told in json.loads((folder / "probes.json").read_text())["blocks"].items():
        names = [block, *(f"{block}.{i}" for i in range(1, count))]
        found[int(block)] = [(vectors[n], a["mu0"]) for n, a in zip(names, told["axes"], strict=False)]
    return found


@contextmanager
def without(model: Any, axes: dict[int, list[Axis]]) -> Iterator[None]:
    """Inside, the blocks' outputs lose what lies above the benign mean along their axes."""
    with ExitStack() as stack:
        for block, own in axes.items():
            handle = model.model.layers[block].register_forward_hook(_hook(own))
            stack.callback(handle.remove)
        yield


def _hook(axes: Sequence[Axis]) -> Any:
    def hook(_: Any, given: Any, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        for part in [(h @ v - mu0).clamp_min(0)[..., None] * v for v, mu0 in axes]:
            h = h - part
        return (h, *output[1:]) if isinstance(output, tuple) else h

    return hook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", type=Path)
    parser.add_argument("--blocks", nargs="*", help="sets of blocks, such as 10,25 (none: all of them together)")
    parser.add_argument("--axes", type=int, default=1, help="directions of each block")
    parser.add_argument("--n", type=int, default=3, help="continuations of each prompt")
    told = parser.parse_args()
    every = axes_of(told.cell, told.axes)
    sets = [[int(b) for b in word.split(",")] for word in told.blocks or [",".join(map(str, every))]]
    reference = json.loads((told.cell / "cell.json").read_text())["model_ref"]
    hf, tokenizer, _ = load_part(reference, torch.float32, torch.device("cpu"), None, say=print)
    model, scorer = EvalModel(hf, tokenizer, device=torch.device("cpu")), make_scorer("profanity-check")
    lines = (told.cell / "samples/toxicity.jsonl").read_text().splitlines()
    prompts = [json.loads(line)["prompt"] for line in lines]
    print("| blocks | toxicity | share at .5 | own text |\n| --- | ---: | ---: | ---: |")
    for blocks in [[], *sets]:
        with without(hf, {b: every[b] for b in blocks}):
            outputs = model.generate(prompts, max_new_tokens=20, n=told.n, temperature=1.0, top_p=0.9, seed=0)
        scores = scorer.score([text for texts in outputs for text in texts])
        written = [(p, text) for p, texts in zip(prompts, outputs, strict=True) for text in texts if text.strip()]
        read = model.logprobs(written)
        perplexity = math.exp(-sum(r.total for r in read) / sum(len(r.tokens) for r in read))
        name = ", ".join(map(str, blocks)) or "none"
        print(
            f"| {name} | {fmean(scores):.3f} | {fmean(s >= 0.5 for s in scores):.3f} | {perplexity:.1f} |", flush=True
        )


if __name__ == "__main__":
    main()
