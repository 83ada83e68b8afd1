"""Perplexity per token of running text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from ...evaluate.examples import token_scores
from ...evaluate.metric import Metric, Row
from ...specs import Config, Example, MetricSpec, ValueSpec

if TYPE_CHECKING:
    from ...evaluate.model import EvalModel


class PerplexityConfig(Config):
    """Options of `perplexity`."""

    max_tokens: int | None = Field(None, ge=1)
    """tokens of each text that are scored (none = all); bounds the time. Not used for text after a prompt"""
    separator: str = " "
    """put between prompt and text where neither brings white space of its own"""


class Perplexity(Metric[PerplexityConfig]):
    """Rolling log-likelihood of `text`; after `prompt` where an example has one. One document, one row.

        perplexity = exp(-sum log p(x_t | x_<t) / tokens), over the tokens of all documents;  nll = its logarithm, nats

    Source: `loglikelihood_rolling` of lm-evaluation-harness, by the model's own tokens and not by words.
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        config = self.config
        found = token_scores(model, examples, separator=config.separator, max_tokens=config.max_tokens)
        for example, scores in zip(examples, found, strict=True):
            tokens = len(scores.tokens)
            # A text without tokens weighs nothing, so its value is never read.
            nll = scores.mean_nll if tokens else 0.0
            yield Row(
                example.id,
                {"perplexity": nll, "nll": nll},
                weight=float(tokens),
                group=example.group,
                unit=example.unit or example.id,
            )


SPEC = MetricSpec(
    name="perplexity",
    summary="exp of the mean negative log-likelihood per token, every token of a text counted once",
    load="unlearn_suite.builtin.metrics.perplexity:Perplexity",
    config=PerplexityConfig,
    by_example=True,
    values={
        "perplexity": ValueSpec("perplexity per token", better="lower", lowest=1, aggregate="exp-mean"),
        "nll": ValueSpec("negative log-likelihood per token", unit="nats", better="lower", lowest=0),
    },
)
