"""ROUGE: how much of a reference text the model writes when it is given the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from ...evaluate.examples import answer_of
from ...evaluate.metric import Metric, Row
from ...specs import Config, Example, MetricSpec, ValueSpec

if TYPE_CHECKING:
    from ...evaluate.model import EvalModel

_SLOT = "{prompt}"


class RougeConfig(Config):
    """Options of `rouge`."""

    max_new_tokens: int = Field(200, ge=1)
    """tokens of the continuation at most"""
    stop: tuple[str, ...] = ()
    """a continuation ends before the first of these strings"""
    template: str = _SLOT
    """what the model is given; {prompt} stands for the example's prompt"""

    stem: bool = True
    """compare the stems of words (Porter), as most work on question answering does; false: the words"""

    @field_validator("template")
    @classmethod
    def _with_slot(cls, value: str) -> str:
        if _SLOT not in value:
            raise ValueError(f"a template holds {_SLOT}")
        return value


class Rouge(Metric[RougeConfig]):
    """Compares the greedy continuation of `prompt` with `text`. Words are lower-cased and stemmed (`stem`).

        rougeL-recall = LCS / words of the reference;  precision = LCS / words of the continuation
        rougeL-f1 = 2 recall precision / (recall + precision);  rouge1-recall = words in common / words of the reference

    LCS is the length of the longest common subsequence. Source: Lin 2004 (W04-1013), computed by rouge-score.
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=self.config.stem)
        config = self.config
        answers = [answer_of(example) for example in examples]
        prompts = [config.template.replace(_SLOT, example.prompt) for example in examples]
        outputs = model.generate(prompts, max_new_tokens=config.max_new_tokens, temperature=0, stop=config.stop)
        for example, prompt, answer, (output,) in zip(examples, prompts, answers, outputs, strict=True):
            yield Row(
                example.id,
                rouge_values(scorer, answer, output),
                group=example.group,
                unit=example.unit or example.id,
                sample={"prompt": prompt, "output": output, "answer": answer},
            )


def rouge_values(scorer: Any, answer: str, output: str) -> dict[str, float]:
    """The metric's values. `scorer` is a `RougeScorer` of rouge1 and rougeL."""
    scores = scorer.score(answer, output)
    return {
        "rougeL-recall": float(scores["rougeL"].recall),
        "rougeL-f1": float(scores["rougeL"].fmeasure),
        "rouge1-recall": float(scores["rouge1"].recall),
    }


_STUDIED = (
    "tells models that know an answer from models that never saw it with AUC .72; its verdict lasts to .12 after an "
    "epoch of relearning, to .91 after rounding to 4 bits (150 models, arXiv:2605.24614)"
)

SPEC = MetricSpec(
    name="rouge",
    summary="overlap of the greedy continuation of a prompt with a reference text",
    load="unlearn_suite.builtin.metrics.rouge:Rouge",
    config=RougeConfig,
    by_example=True,
    paper="Lin, W04-1013",
    values={
        "rougeL-recall": ValueSpec(
            "longest common subsequence of words / words of the reference",
            better="higher",
            lowest=0,
            highest=1,
            reliability=_STUDIED,
        ),
        "rougeL-f1": ValueSpec(
            "harmonic mean of that and of the same share of the continuation's words",
            better="higher",
            lowest=0,
            highest=1,
            reliability=f"studied as rougeL-recall: {_STUDIED}",
        ),
        "rouge1-recall": ValueSpec(
            "words of the reference that the continuation has, in any order / words of the reference",
            better="higher",
            lowest=0,
            highest=1,
        ),
    },
)
