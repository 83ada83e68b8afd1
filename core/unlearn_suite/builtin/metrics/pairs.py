"""Pairs of texts: which of the two the model finds more probable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...errors import PlanError
from ...evaluate.examples import join
from ...evaluate.metric import Metric, Row
from ...specs import Config, Example, MetricSpec, ValueSpec

if TYPE_CHECKING:
    from ...evaluate.model import EvalModel


class PairsConfig(Config):
    """Options of `pairs`."""

    separator: str = " "
    """put between prompt and text where neither brings white space of its own"""


class Pairs(Metric[PairsConfig]):
    """Scores both `choices` of an example after its prompt (after nothing, when it has none).

        l(text) = sum_t log p(text_t | prompt, text_<t);  gap = l(first) - l(second), nats;  difference = |gap|
        first = [gap > 0];  first-per-token = the same of l / tokens

    Source: CrowS-Pairs, arXiv:2010.00133. The two summed log-likelihoods are lm-evaluation-harness's of its CrowS-Pairs
    tasks. Texts of unlike length have unlike sums whatever they say: compare a model with itself before and after, not
    with a half.
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        pairs = [(e.prompt, join(e.prompt, text, self.config.separator)) for e in examples for text in _both(e)]
        scores = iter(model.logprobs(pairs))
        for example in examples:
            one, two = next(scores), next(scores)
            gap = one.total - two.total
            values = {
                "first": float(gap > 0),
                "difference": abs(gap),
                "gap": gap,
                "first-per-token": float(one.mean_nll < two.mean_nll),
            }
            sample = {"prompt": example.prompt, "first": example.choices[0], "second": example.choices[1]}
            yield Row(example.id, values, group=example.group, unit=example.unit or example.id, sample=sample)


def _both(example: Example) -> tuple[str, ...]:
    if len(example.choices) != 2 or not all(text.strip() for text in example.choices):
        raise PlanError(
            f"example {example.id!r} is no pair of texts",
            code="no-pair",
            hint="give it two `choices`, the first the one to be told apart",
        )
    return example.choices


SPEC = MetricSpec(
    name="pairs",
    summary="which of two texts is more probable, such as a stereotype and its opposite",
    load="unlearn_suite.builtin.metrics.pairs:Pairs",
    config=PairsConfig,
    by_example=True,
    paper="arXiv:2010.00133",
    values={
        "first": ValueSpec(
            "the first text has the larger summed log-likelihood (lm-eval: pct_stereotype)",
            chance=0.5,
            lowest=0,
            highest=1,
        ),
        "difference": ValueSpec(
            "absolute difference of the summed log-likelihoods (lm-eval: likelihood_diff)", unit="nats", lowest=0
        ),
        "gap": ValueSpec("log-likelihood of the first minus that of the second text", unit="nats"),
        "first-per-token": ValueSpec(
            "the first text has the larger mean log-likelihood per token", chance=0.5, lowest=0, highest=1
        ),
    },
)
