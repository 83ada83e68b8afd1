"""What a metric is: it reads a model and examples, and gives one row per example, never only a mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..specs import Config, Example

if TYPE_CHECKING:
    from .model import EvalModel

C = TypeVar("C", bound=Config)

__all__ = ["EvalModel", "Metric", "Row"]


@dataclass(frozen=True)
class Row:
    """The scores of one example.

    `values` by the names in the metric's spec; `weight` for weighted means (token counts for
    perplexity); `unit` is what bootstrap resamples (a fact, a prompt); `sample` holds texts worth
    reading, such as {"prompt": ..., "output": ...}.
    """

    id: str
    values: Mapping[str, float]
    weight: float = 1.0
    group: str = ""
    unit: str = ""
    sample: Mapping[str, Any] = field(default_factory=dict)


class Metric(Generic[C]):
    """A metric with its options. Stateless between calls."""

    def __init__(self, config: C) -> None:
        """`config`: the options, an instance of the class that the spec names."""
        self.config = config
        """the options"""

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        """Rows for all examples, in their order. `seed` is the only randomness.

        `examples` are those of the entry's data role (none where it has no role), in parts for a spec with
        `by_example`. A `SuiteError` that is raised inside is told as it is; any other exception becomes a
        `PluginError` (`metric-failed`).

        Rows that break the spec are a `PluginError` (`metric-rows`): no row at all; an id that comes twice, that is no
        example's, or out of order; no value, a value that the spec does not declare, or one that is not finite; a
        weight that is negative or not finite.
        """
        raise NotImplementedError


def __getattr__(name: str) -> Any:
    if name == "EvalModel":
        from .model import EvalModel

        return EvalModel
    raise AttributeError(name)
