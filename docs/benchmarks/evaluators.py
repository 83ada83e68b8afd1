"""Evaluation: the suite's metrics against evaluators that work as OpenUnlearning's do, on the same items.

    python docs/benchmarks/evaluators.py MODEL                       # items made of general-text
    python docs/benchmarks/evaluators.py MODEL --rows forget10_perturbed.json     # TOFU's, one JSON object a line

Each item is a question with an answer, a paraphrase and wrong answers. `plain` is written here from the behaviour of
OpenUnlearning's evaluators (commit d3d7cf9): every metric goes over its data by itself, in the order of the file and in
batches of `--batch` padded on the right; the model gives logits at all positions, of which a log-softmax in float32
is taken, min-k++ reads the model twice, and generation is transformers' `generate`, padded on the left. `suite` are the
metrics of the plugin `benchmarks`, with one memory of what was asked for all of them, as a cell has it. Both run in one
process, in turn, `--rounds` times after one round that is not timed; their numbers are compared. The end token that
OpenUnlearning adds to answers is left out of both.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from rouge_score.rouge_scorer import RougeScorer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_suite import Example
from unlearn_suite.builtin.general_text import paragraphs
from unlearn_suite.builtin.metrics.rouge import Rouge, RougeConfig
from unlearn_suite.evaluate.memory import ScoreMemory
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite_benchmarks.memorisation.config import ExtractionConfig, MatchConfig, MiaConfig
from unlearn_suite_benchmarks.memorisation.matches import ExactMemorisation, ExtractionStrength
from unlearn_suite_benchmarks.memorisation.mia import Mia
from unlearn_suite_benchmarks.tofu.config import ProbabilityConfig, TruthRatioConfig
from unlearn_suite_benchmarks.tofu.metrics import Probability, TruthRatio

Numbers = dict[str, list[float]]
Way = Callable[[], Numbers]
TOLERANCE = 1e-3
K = 0.4
HEAD = """\
| metrics | s: plain | suite | against plain | by CPU time |
| --- | ---: | ---: | ---: | ---: |"""


def made_up(count: int) -> list[Example]:
    """Questions about how a paragraph goes on; the paraphrase and the wrong answers are words of the same kind."""
    texts = [text.split() for text in paragraphs() if len(text.split()) >= 50]
    found = []
    for i in range(count):
        words, *others = (texts[(i * 5 + j) % len(texts)] for j in range(4))
        asked = f"Question: How does this go on? {' '.join(words[: 12 + i % 9])}\nAnswer:"
        cut = 14 + i % 12
        choices = tuple(f" {' '.join(one[21 : 21 + cut])}" for one in (words, *others))
        found.append(Example(str(i), f" {' '.join(words[20 : 20 + cut])}", asked, choices, 0, "member"))
    return found


def of_tofu(path: Path, count: int) -> list[Example]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    found = []
    for i, row in enumerate(rows):
        choices = tuple(f" {text}" for text in (row["paraphrased_answer"], *row["perturbed_answer"]))
        found.append(
            Example(str(i), f" {row['answer']}", f"Question: {row['question']}\nAnswer:", choices, 0, "member")
        )
    return found


class Plain:
    """One metric after another, each with passes of its own."""

    def __init__(self, hf: Any, tokenizer: Any, examples: Sequence[Example], batch: int, new_tokens: int) -> None:
        self.hf, self.tokenizer, self.examples = hf, tokenizer, examples
        self.batch, self.new_tokens = batch, new_tokens

    def batches(self, texts: Sequence[str]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(ids, attention mask, labels) [B, T] of prompts followed by texts; labels of prompts and padding are -100."""
        rows = []
        for example, text in zip(self.examples, texts, strict=True):
            given = self.tokenizer(example.prompt)["input_ids"]
            ids = self.tokenizer(example.prompt + text)["input_ids"]
            rows.append((torch.tensor(ids), torch.tensor([-100] * len(given) + ids[len(given) :])))
        found = []
        for start in range(0, len(rows), self.batch):
            ids, labels = zip(*rows[start : start + self.batch], strict=True)
            padded = pad_sequence(list(ids), batch_first=True, padding_value=self.tokenizer.pad_token_id)
            mask = pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
            found.append((padded, mask, pad_sequence(list(labels), batch_first=True, padding_value=-100)))
        return found

    def losses(self, texts: Sequence[str]) -> list[float]:
        """Mean NLL of each text, from the cross-entropy at every position."""
        found: list[float] = []
        for ids, mask, labels in self.batches(texts):
            with torch.no_grad():
                logits = self.hf(input_ids=ids, attention_mask=mask, labels=labels).logits.float()
            after = labels[:, 1:].contiguous()
            each = torch.nn.functional.cross_entropy(
                logits[:, :-1].transpose(1, 2), after, ignore_index=-100, reduction="none"
            )
            found += (each.sum(1) / (after != -100).sum(1)).tolist()
        return found

    def logprobs(self) -> list[tuple[Tensor, Tensor]]:
        """Of each answer, log p at its positions [N, V] and its tokens [N]."""
        found = []
        for ids, mask, labels in self.batches([e.text for e in self.examples]):
            with torch.no_grad():
                logp = self.hf(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1)[:, :-1]
            for row, wanted in zip(logp, labels[:, 1:], strict=True):
                found.append((row[wanted != -100], wanted[wanted != -100]))
        return found

    def tokens(self) -> list[Tensor]:
        return [logp.gather(1, wanted[:, None])[:, 0] for logp, wanted in self.logprobs()]

    def probability(self) -> Numbers:
        """Of the answer, and the truth ratio, choice by choice, as TOFU's perturbed sets are read."""
        own = torch.tensor(self.losses([e.text for e in self.examples]))
        right, *wrong = (
            torch.tensor(self.losses(texts)) for texts in zip(*(e.choices for e in self.examples), strict=True)
        )
        ratio = torch.stack(wrong).neg().exp().mean(0) / right.neg().exp()
        return {"probability": own.neg().exp().tolist(), "ratio": ratio.tolist()}

    def memorisation(self) -> Numbers:
        exact = [float((logp.argmax(-1) == wanted).float().mean()) for logp, wanted in self.logprobs()]
        strength = []
        for logp, wanted in self.logprobs():
            said, n = logp.argmax(-1), len(wanted)
            k = next((k for k in range(n) if torch.equal(said[k:], wanted[k:])), n)
            strength.append(1 - k / n)
        return {"share": exact, "strength": strength}

    def mia(self) -> Numbers:
        answers = [e.text for e in self.examples]
        loss = self.losses(answers)
        packed = [len(zlib.compress(text.encode())) for text in answers]
        ratio = [one / size for one, size in zip(self.losses(answers), packed, strict=True)]
        plus = []
        for (logp, _), own in zip(self.logprobs(), self.tokens(), strict=True):
            mean = (logp.exp() * logp).sum(-1)
            spread = ((logp.exp() * logp.square()).sum(-1) - mean.square()).clamp_min(1e-6)
            plus.append(lowest((own - mean) / spread.sqrt()))
        return {"loss": loss, "zlib": ratio, "min-k": [lowest(own) for own in self.tokens()], "min-k-plus-plus": plus}

    def rouge(self) -> Numbers:
        scorer = RougeScorer(["rougeL"], use_stemmer=True)
        found = []
        for start in range(0, len(self.examples), self.batch):
            part = self.examples[start : start + self.batch]
            asked = self.tokenizer([e.prompt for e in part], return_tensors="pt", padding=True, padding_side="left")
            with torch.no_grad():
                out = self.hf.generate(**asked, do_sample=False, max_new_tokens=self.new_tokens)
            said = self.tokenizer.batch_decode(out[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)
            found += [scorer.score(e.text, text)["rougeL"].recall for e, text in zip(part, said, strict=True)]
        return {"rougeL-recall": found}


def lowest(values: Tensor) -> float:
    return -float(values.sort().values[: max(int(K * len(values)), 1)].mean())


def suite(model: EvalModel, examples: Sequence[Example], new_tokens: int) -> dict[str, Way]:
    """The plugin's metrics; what one of them asked is remembered for the next."""

    def of(*metrics: Any) -> Way:
        def run() -> Numbers:
            rows = [list(metric.score(model, examples, 0)) for metric in metrics]
            return {name: [row.values[name] for row in some] for some in rows for name in some[0].values}

        return run

    return {
        "probability, truth ratio": of(Probability(ProbabilityConfig()), TruthRatio(TruthRatioConfig())),
        "exact memorisation, extraction strength": of(
            ExactMemorisation(MatchConfig()), ExtractionStrength(ExtractionConfig())
        ),
        "loss, zlib, min-k, min-k++": of(Mia(MiaConfig(k=K))),
        "ROUGE": of(Rouge(RougeConfig(max_new_tokens=new_tokens))),
    }


def plain(hf: Any, tokenizer: Any, examples: Sequence[Example], batch: int, new_tokens: int) -> dict[str, Way]:
    way = Plain(hf, tokenizer, examples, batch, new_tokens)
    return {
        "probability, truth ratio": way.probability,
        "exact memorisation, extraction strength": way.memorisation,
        "loss, zlib, min-k, min-k++": way.mia,
        "ROUGE": way.rouge,
    }


def spend(run: Way) -> tuple[Numbers, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    numbers = run()
    return numbers, time.perf_counter() - wall, time.process_time() - cpu


def compare(name: str, mine: Numbers, theirs: Numbers) -> None:
    for value, numbers in theirs.items():
        worst = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(mine[value], numbers, strict=True))
        if worst > TOLERANCE:
            sys.exit(f"{name}: {value} differs by {worst:.1e}")


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("model", help="folder of a causal language model")
    made.add_argument("--rows", type=Path, help="a perturbed set of TOFU (none = made of general-text)")
    made.add_argument("--items", type=int, default=16)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--batch", type=int, default=32, help="of the plain way (OpenUnlearning's default is 32)")
    made.add_argument("--new-tokens", type=int, default=32, help="of ROUGE's continuations")
    made.add_argument("--threads", type=int, default=1)
    args = made.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    hf = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    examples = of_tofu(args.rows, args.items) if args.rows else made_up(args.items)
    model = EvalModel(hf, tokenizer)
    ways = {
        "plain": plain(hf, tokenizer, examples, args.batch, args.new_tokens),
        "suite": suite(model, examples, args.new_tokens),
    }
    spent: dict[str, dict[str, list[tuple[float, float]]]] = {way: {name: [] for name in ways[way]} for way in ways}
    for number in range(args.rounds + 1):
        model.memory = ScoreMemory()
        for name in ways["plain"]:
            found = {way: spend(ways[way][name]) for way in ways}
            compare(name, found["suite"][0], found["plain"][0])
            if number:
                for way, (_, *seconds) in found.items():
                    spent[way][name].append((seconds[0], seconds[1]))
    print(
        f"{Path(args.model).name}, float32, {args.threads} threads, {len(examples)} items, batches of {args.batch}, "
        f"{args.new_tokens} new tokens, median of {args.rounds} rounds; {platform.machine()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}\n\n{HEAD}"
    )
    median = {
        way: {name: [statistics.median(x) for x in zip(*times, strict=True)] for name, times in by_name.items()}
        for way, by_name in spent.items()
    }
    for by_name in median.values():
        scored = [times for name, times in by_name.items() if name != "ROUGE"]
        by_name["all but ROUGE"] = [sum(x) for x in zip(*scored, strict=True)]
    for name, (wall, cpu) in median["plain"].items():
        own = median["suite"][name]
        print(f"| {name} | {wall:.2f} | {own[0]:.2f} | **{wall / own[0]:.2f}x** | {cpu / own[1]:.2f}x |")


if __name__ == "__main__":
    main()
