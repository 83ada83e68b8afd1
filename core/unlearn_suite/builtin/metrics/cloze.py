"""Cloze items: a prompt whose continuation is the answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...evaluate.examples import answer_of, join
from ...evaluate.metric import Metric, Row
from ...specs import Config, Example, MetricSpec, ValueSpec

if TYPE_CHECKING:
    from ...evaluate.model import EvalModel


class ClozeConfig(Config):
    """Options of `cloze`."""

    separator: str = " "
    """put between prompt and answer where neither brings white space of its own"""


class Cloze(Metric[ClozeConfig]):
    """Scores `text` (tokens y_1 ... y_n) as the continuation of `prompt` (x).

        exact = 1 if y_t = argmax_v p(v | x, y_<t) for all t, else 0;  hit = share of the t for which that holds
        nll = -(1/n) sum_t log p(y_t | x, y_<t), nats;                 p = exp(sum_t log p(y_t | x, y_<t))

    Source: `loglikelihood` of lm-evaluation-harness and its `is_greedy` (LAMBADA, arXiv:1606.06031).
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        pairs = [(e.prompt, join(e.prompt, answer_of(e), self.config.separator)) for e in examples]
        for example, scores in zip(examples, model.logprobs(pairs), strict=True):
            values = {
                "exact": float(scores.exact),
                "nll": scores.mean_nll,
                "p": math.exp(scores.total),
                "hit": sum(scores.greedy) / len(scores.greedy),
            }
            sample = {"prompt": example.prompt, "answer": answer_of(example)}
            yield Row(example.id, values, group=example.group, unit=example.unit or example.id, sample=sample)


SPEC = MetricSpec(
    name="cloze",
    summary="whether the model completes a prompt with the answer, and how probable the answer is",
    load="unlearn_suite.builtin.metrics.cloze:Cloze",
    config=ClozeConfig,
    by_example=True,
    values={
        "exact": ValueSpec("greedy decoding gives exactly the answer's tokens", better="higher", lowest=0, highest=1),
        "nll": ValueSpec(
            "mean negative log-likelihood per answer token",
            unit="nats",
            better="lower",
            lowest=0,
            reliability="as exp(-nll): tells models that know an answer from models that never saw it with AUC .82; "
            "its verdict lasts to .49 after an epoch of relearning, to .87 after rounding to 4 bits; of paraphrased "
            "questions .71, .85, .77 (150 models, arXiv:2605.24614)",
        ),
        "p": ValueSpec("probability of the whole answer", better="higher", lowest=0, highest=1),
        "hit": ValueSpec(
            "share of the answer's tokens that are the most probable one",
            better="higher",
            lowest=0,
            highest=1,
        ),
    },
)
