"""Options of the metrics of memorised text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from unlearn_suite import Config


class MatchConfig(Config):
    """Options of `exact-memorisation`."""

    separator: str = " "
    """put between prompt and text where neither brings white space of its own"""


class ExtractionConfig(MatchConfig):
    """Options of `extraction-strength`."""

    mode: Literal["definition", "legacy"] = "definition"
    """legacy: as OpenUnlearning computes it, where the last token always counts as matched: never below 1 / n"""


class MiaConfig(Config):
    """Options of `mia`."""

    k: float = Field(0.4, gt=0, le=1)
    """share of the tokens, the least probable ones, that `min-k` and `min-k-plus-plus` read"""
    gradnorm: bool = False
    """also `gradnorm`: one backward pass per text, and memory for the gradient of all weights"""
    reference: Path | Literal["published"] | None = None
    """also `reference`, against a model that never saw the members: `published`, the model before all stages of the
    cell, its `start` included; or the folder of a checkpoint with the same tokenizer, such as an exported oracle arm"""
    separator: str = " "
    """put between prompt and text where neither brings white space of its own"""
