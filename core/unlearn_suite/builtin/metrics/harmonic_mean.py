"""The harmonic mean of other entries' values, such as TOFU's model utility."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from ...evaluate.metric import Metric, Row
from ...specs import Config, Example, MetricSpec, ValueSpec

if TYPE_CHECKING:
    from ...evaluate.model import EvalModel


class HarmonicMeanConfig(Config):
    """Options of `harmonic-mean`."""

    of: tuple[str, ...] = Field(min_length=2)
    """metric entries of the problem, each with the first value it shows; these values lie between 0 and 1"""


class HarmonicMean(Metric[HarmonicMeanConfig]):
    """Made in the report, from rows that others scored.

        H = n / (1 / x_1 + ... + 1 / x_n), of values from 0 to 1; 0 where one of them is 0

    Source: TOFU's model utility, arXiv:2401.06121.
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        raise NotImplementedError("the report combines the values of other entries")


SPEC = MetricSpec(
    name="harmonic-mean",
    summary="harmonic mean of the values of other metric entries: one at 0 makes it 0",
    load="unlearn_suite.builtin.metrics.harmonic_mean:HarmonicMean",
    config=HarmonicMeanConfig,
    needs_data=False,
    combines="harmonic",
    values={"harmonic-mean": ValueSpec("n / (1 / x1 + ... + 1 / xn)", better="higher", lowest=0, highest=1)},
)
