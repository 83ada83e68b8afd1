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
        self.config = config

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        """Rows for all examples, in their order. `seed` is the only randomness."""
        raise NotImplementedError


def __getattr__(name: str) -> Any:
    if name == "EvalModel":
        from .model import EvalModel

        return EvalModel
    raise AttributeError(name)
