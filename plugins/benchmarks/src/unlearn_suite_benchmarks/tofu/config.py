"""Options of TOFU's dataset and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from unlearn_suite import Config, records

Split = Literal[
    "full", "forget01", "forget05", "forget10", "retain99", "retain95", "retain90",
    "holdout01", "holdout05", "holdout10",
    "forget01_perturbed", "forget05_perturbed", "forget10_perturbed", "retain_perturbed",
    "real_authors_perturbed", "world_facts_perturbed", "idontknow",
]  # fmt: skip
SLOT = "{question}"


class TofuConfig(records.Source):
    """One set of TOFU."""

    split: Split = "full"
    """full, forgetNN, retainNN, holdoutNN: questions with answers; ..._perturbed: also a paraphrase of the right answer
    (where the release has one) and wrong ones, as choices; idontknow: refusals"""
    path: Path | None = None
    """folder of the release, `forget10.json` or `.jsonl` and so on (none = the hub)"""
    template: str = f"Question: {SLOT}\nAnswer:"
    """the prompt; {question} stands for the question. The answer follows after a blank"""
    part: Literal["all", "attack", "rest"] = "all"
    """all, or a half of the questions by the hash of their words: attack, which a relearning attacker is given, or
    rest"""
    group: str = ""
    """group of all examples, such as member or non-member for `mia`"""
    limit: int | None = Field(None, ge=1)
    """largest number of questions, from the top, before they are parted; 20 in a row are about one author (none = no
    limit)"""

    @field_validator("template")
    @classmethod
    def _with_slot(cls, value: str) -> str:
        if SLOT not in value:
            raise ValueError(f"a template holds {SLOT}")
        return value


class ProbabilityConfig(Config):
    """Options of `probability`."""

    mode: Literal["definition", "legacy"] = "definition"
    """legacy: as OpenUnlearning computes it, where the end token belongs to every answer"""
    separator: str = " "
    """put between prompt and text where neither brings white space of its own"""


class TruthRatioConfig(Config):
    """Options of `truth-ratio`."""

    mode: Literal["definition", "legacy"] = "definition"
    """definition: the mean of the wrong answers' probabilities; legacy: exp of their mean log-probability, with the end
    token in every answer, as OpenUnlearning (and the release's own code) computes it"""
    separator: str = " "
    """put between prompt and text where neither brings white space of its own"""
