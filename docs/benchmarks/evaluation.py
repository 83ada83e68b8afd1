"""Evaluation: the suite's log-probabilities against lm-evaluation-harness's loop and a plain loop, on the same items.

    python docs/benchmarks/evaluation.py MODEL                      # items made of general-text
    python docs/benchmarks/evaluation.py MODEL --rows questions.jsonl   # {"question": ..., "choices": [...]} a line

Four kinds of items: `letters` (an exam's question, the letters A to D as continuations), `few-shot` (the same after
three worked examples), `answers` (a question, four answers of several words as continuations) and `texts` (running
text, no shared beginning). Three ways, in one process, each in turn, `--rounds` times after one round that is not
timed: one pair at a time through the whole model; `HFLM.loglikelihood` at each of `--batch` (the fastest counts);
`EvalModel.logprobs` as metrics call it. The scores of all ways are compared. A last line is of three metrics that ask
for the same texts.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_suite.builtin.general_text import paragraphs
from unlearn_suite.evaluate.memory import ScoreMemory
from unlearn_suite.evaluate.model import EvalModel

Pairs = list[tuple[str, str]]
Way = Callable[[Pairs], list[float]]
LETTERS = "ABCD"
HEAD = """\
| items | pairs | s: plain | lm-eval | suite | against lm-eval | by CPU time | against plain | by CPU time |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""
TOLERANCE = 1e-3
"""largest difference of a summed log-probability between two ways"""


def made_up(count: int) -> list[dict[str, Any]]:
    """Questions about which sentence goes on: a beginning of a paragraph, the true next words and three others'."""
    texts = [text.split() for text in paragraphs() if len(text.split()) >= 40]
    rows = []
    for i in range(count):
        others = [texts[(i * 7 + j) % len(texts)] for j in range(4)]
        question = f"Which words go on from here? {' '.join(others[0][: 16 + i % 12])}"
        rows.append({"question": question, "choices": [" ".join(words[28 : 33 + i % 5]) for words in others]})
    return rows


def letters(rows: Sequence[dict[str, Any]]) -> Pairs:
    def exam(row: dict[str, Any]) -> str:
        lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=False)]
        return "\n".join([row["question"], *lines, "Answer:"])

    return [(exam(row), f" {letter}") for row in rows for letter in LETTERS[: len(row["choices"])]]


def few_shot(rows: Sequence[dict[str, Any]]) -> Pairs:
    """The last three rows, solved, before each of the others."""
    before = "\n\n".join(f"{context} A" for context, letter in letters(rows[-3:]) if letter == " A")
    return [(f"{before}\n\n{context}", letter) for context, letter in letters(rows[:-3])]


def answers(rows: Sequence[dict[str, Any]]) -> Pairs:
    return [(f"Question: {row['question']}\nAnswer:", f" {choice}") for row in rows for choice in row["choices"]]


def texts(rows: Sequence[dict[str, Any]]) -> Pairs:
    return [("", text) for text in sorted(paragraphs())[: 2 * len(rows)]]


KINDS: dict[str, Callable[[Sequence[dict[str, Any]]], Pairs]] = {
    "letters": letters,
    "few-shot": few_shot,
    "answers": answers,
    "texts": texts,
}


def plain(model: EvalModel) -> Way:
    """One pair at a time, all positions through the LM head."""

    def run(pairs: Pairs) -> list[float]:
        totals = []
        with torch.no_grad():
            for context, continuation in pairs:
                given, scored = model.encode(context, continuation)
                ids = torch.tensor([[*given, *scored]])
                logp = model.hf(input_ids=ids, use_cache=False).logits[0, len(given) - 1 : -1].log_softmax(-1)
                totals.append(float(logp.gather(1, torch.tensor(scored)[:, None]).sum()))
        return totals

    return run


def harness(model: EvalModel, batch: int) -> Way:
    """What `lm_eval` runs for a task of log-likelihoods."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model.hf, tokenizer=model.tokenizer, batch_size=batch)

    def run(pairs: Pairs) -> list[float]:
        asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        return [total for total, _ in lm.loglikelihood(asked, disable_tqdm=True)]

    return run


def suite(model: EvalModel) -> Way:
    return lambda pairs: [scores.total for scores in model.logprobs(pairs)]


def measure(
    ways: dict[str, Callable[[Pairs], list[float]]], pairs: Pairs, rounds: int
) -> dict[str, tuple[float, float]]:
    """Median wall-clock and CPU seconds of each way. Ends the program when the scores of two ways differ."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    first: list[float] = []
    for number in range(rounds + 1):
        for name, run in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            totals = run(pairs)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            first = first or totals
            worst = max(abs(a - b) for a, b in zip(first, totals, strict=True))
            if worst > TOLERANCE:
                sys.exit(f"{name} differs by {worst:.1e} from the first way")
            if number:
                found[name].append(spent)
    return {name: tuple(statistics.median(x) for x in zip(*times, strict=True)) for name, times in found.items()}


def table(model: EvalModel, rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    print(HEAD)
    for kind, make in KINDS.items():
        pairs = make(rows)
        ways = {"plain": plain(model), "suite": suite(model)}
        ways |= {f"lm-eval {batch}": harness(model, batch) for batch in args.batch}
        spent = measure(ways, pairs, args.rounds)
        best = min((name for name in spent if name.startswith("lm-eval")), key=lambda name: spent[name])
        seconds = " | ".join(f"{spent[name][0]:.2f}" for name in ("plain", best, "suite"))
        seconds = seconds.replace(" | ", f" | (batch {best.split()[1]}) ", 1)
        faster = [f"{spent[other][i] / spent['suite'][i]:.2f}x" for other in (best, "plain") for i in (0, 1)]
        print(f"| {kind} | {len(pairs)} | {seconds} | **{faster[0]}** | {' | '.join(faster[1:])} |", flush=True)


def shared(model: EvalModel, rows: list[dict[str, Any]], rounds: int) -> None:
    """Three metrics that ask for the same texts: each by itself, and with what was asked before remembered."""

    def three(pairs: Pairs) -> list[float]:
        return [[s.total for s in model.logprobs(pairs)] for _ in range(3)][-1]

    def once(pairs: Pairs) -> list[float]:
        model.memory = ScoreMemory()
        try:
            return three(pairs)
        finally:
            model.memory = None

    spent = measure({"three passes": three, "one pass": once}, texts(rows), rounds)
    ratios = [spent["three passes"][i] / spent["one pass"][i] for i in (0, 1)]
    print(f"\nThree metrics over the same texts: {ratios[0]:.2f}x faster ({ratios[1]:.2f}x by CPU time) in one pass.")


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("model", help="folder of a causal language model")
    made.add_argument("--rows", type=Path, help="file of questions (none = made of general-text)")
    made.add_argument("--items", type=int, default=24, help="questions; twice as many texts")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], help="batch sizes of lm-eval")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--device", default="cpu")
    args = made.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    hf = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval().to(args.device)
    model = EvalModel(hf, AutoTokenizer.from_pretrained(args.model))
    lines = args.rows.read_text(encoding="utf-8").splitlines()[: args.items] if args.rows else []
    rows = [json.loads(line) for line in lines] or made_up(args.items)
    source = args.rows.name if args.rows else "general-text"
    import lm_eval

    print(
        f"{Path(args.model).name}, float32, {args.device}, {args.threads} threads, {len(rows)} questions of {source}, "
        f"median of {args.rounds} rounds; {platform.machine()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, lm-eval {lm_eval.__version__}\n"
    )
    table(model, rows, args)
    shared(model, rows, args.rounds)


if __name__ == "__main__":
    main()
