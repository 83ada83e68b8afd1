"""Extraction strength and exact memorisation: how long greedy decoding follows a text, token by token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from unlearn_suite import Example, Metric, Row, token_scores

from .config import ExtractionConfig, MatchConfig

if TYPE_CHECKING:
    from unlearn_suite import EvalModel


def extraction_strength(matches: Sequence[bool], legacy: bool = False) -> float:
    """1 - k* / n, where k* is the smallest k such that all matches from number k on hold (n if the last does not).

    `legacy` has k* <= n - 1, as the loop of OpenUnlearning falls through there: 1 / n without any match.
    Unitless, 0 (nothing) to 1 (all). Source: arXiv:2406.09179, after the extraction of arXiv:2012.07805.
    Reliability on 150 models of known history (arXiv:2605.24614): tells models that know the text from models that
    never saw it with AUC .89; keeps its verdict after one epoch of relearning to .66, after 4-bit rounding to .97.
    """
    n = len(matches)
    given = n
    while given and matches[given - 1]:
        given -= 1
    return 1 - (min(given, n - 1) if legacy else given) / n


def exact_memorisation(matches: Sequence[bool]) -> float:
    """Matches / tokens, 0 to 1 (arXiv:2205.10770). Reliability as above: AUC .82, relearning .45, 4 bits .98."""
    return sum(matches) / len(matches)


class ExtractionStrength(Metric[ExtractionConfig]):
    """Of `text` after `prompt`, or of running text after the beginning of a sequence. No end token is scored.

        strength = 1 - k / n, k the least number with x_t = argmax_v p(v | x_<t) for all t > k (n: none)

    Source: arXiv:2406.09179. Reliability: AUC .89, relearning .66, 4 bits .97 (arXiv:2605.24614).
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        legacy = self.config.mode == "legacy"
        for example, matches in _matches(model, examples, self.config.separator):
            strength = extraction_strength(matches, legacy)
            yield Row(example.id, {"strength": strength}, group=example.group, unit=example.unit or example.id)


class ExactMemorisation(Metric[MatchConfig]):
    """Of `text` after `prompt`, or of running text after the beginning of a sequence. No end token is scored.

        share = #{t: x_t = argmax_v p(v | x_<t)} / n

    Source: arXiv:2205.10770. Reliability: AUC .82, relearning .45, 4 bits .98 (arXiv:2605.24614).
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        for example, matches in _matches(model, examples, self.config.separator):
            share = exact_memorisation(matches)
            yield Row(example.id, {"share": share}, group=example.group, unit=example.unit or example.id)


def _matches(
    model: EvalModel, examples: Sequence[Example], separator: str
) -> Iterable[tuple[Example, tuple[bool, ...]]]:
    """Whether each token of each text is the most probable one; texts without tokens are left out."""
    found = token_scores(model, examples, separator=separator)
    return [(example, scores.greedy) for example, scores in zip(examples, found, strict=True) if scores.tokens]
