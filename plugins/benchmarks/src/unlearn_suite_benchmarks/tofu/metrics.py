"""TOFU's likelihood metrics (arXiv:2401.06121, section 2.2). P(y) below is exp(mean log-probability per token of y)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from unlearn_suite import Example, Metric, PlanError, Row, token_scores

from .config import ProbabilityConfig, TruthRatioConfig

if TYPE_CHECKING:
    from unlearn_suite import EvalModel

SMALL = 1e-10
"""what OpenUnlearning adds to a denominator"""
LARGEST = 700.0
"""log of the largest ratio that is told"""


def share(right: float, wrong: Sequence[float], legacy: bool = False) -> float:
    """P(right) / (P(right) + sum P(wrong)), 0 to 1, from mean NLLs in nats."""
    least = min(right, *wrong)
    p_right, p_wrong = math.exp(least - right), [math.exp(least - nll) for nll in wrong]
    small = SMALL * math.exp(min(least, LARGEST)) if legacy else 0.0
    return p_right / (p_right + sum(p_wrong) + small)


def truth_ratio(right: float, wrong: Sequence[float]) -> float:
    """(1/n) sum P(wrong) / P(right), 0 or more, from mean NLLs in nats."""
    least = min(wrong)
    log_mean = math.log(sum(math.exp(least - nll) for nll in wrong) / len(wrong)) - least
    return math.exp(max(min(log_mean + right, LARGEST), -LARGEST))


def truth_values(right: float, wrong: Sequence[float]) -> dict[str, float]:
    """The values of `truth-ratio` by definition."""
    ratio = truth_ratio(right, wrong)
    return {
        "true-better": max(0.0, 1 - ratio),
        "closer-to-1": min(ratio, 1 / ratio),
        "share": 1 / (1 + ratio),
        "ratio": ratio,
    }


def legacy_truth_values(right: float, wrong: Sequence[float]) -> dict[str, float]:
    """As OpenUnlearning (d3d7cf9) computes them: the wrong answers' geometric mean, and 1e-10 in every denominator."""
    p_right, p_wrong = math.exp(-right), math.exp(-sum(wrong) / len(wrong))
    ratio = p_wrong / (p_right + SMALL)
    return {
        "true-better": max(0.0, 1 - ratio),
        "closer-to-1": min(ratio, 1 / (ratio + SMALL)),
        "share": p_right / (p_right + p_wrong + SMALL),
        "ratio": ratio,
    }


class Probability(Metric[ProbabilityConfig]):
    """Of `text` after `prompt`; and, for examples with choices, of the right one among them.

        probability = P(text) = exp((1/n) sum_t log p(y_t | x, y_<t));  share = P(right) / (P(right) + sum P(wrong))

    Source: arXiv:2401.06121, section 2.2. Reliability: AUC .82, relearning .49, 4 bits .87 (arXiv:2605.24614).
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        legacy = self.config.mode == "legacy"
        texts = [(e.text, *e.choices) for e in examples]
        for example, (own, *choices) in zip(
            examples, _losses(model, examples, texts, self.config.separator, legacy), strict=True
        ):
            values = {"probability": math.exp(-own)}
            if choices:
                right = choices.pop(_right(example))
                values["share"] = share(right, choices, legacy)
            yield _row(example, values)


class TruthRatio(Metric[TruthRatioConfig]):
    """Of examples with choices: the right one (a paraphrase of the answer, say) and wrong ones.

        ratio R = mean P(wrong) / P(right);  share = 1 / (1 + R)
        true-better = max(0, 1 - R);  closer-to-1 = min(R, 1 / R)
        forget-quality = log10 p of the two-sample Kolmogorov-Smirnov test of R, the arm's against the oracle's

    Source: arXiv:2401.06121, section 2.2. Reliability of share: AUC .95, relearning .13, 4 bits .99 (arXiv:2605.24614).
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        legacy = self.config.mode == "legacy"
        texts = [e.choices for e in examples if _right(e) >= 0]
        for example, losses in zip(
            examples, _losses(model, examples, texts, self.config.separator, legacy), strict=True
        ):
            right = losses.pop(_right(example))
            yield _row(example, (legacy_truth_values if legacy else truth_values)(right, losses))


def _losses(
    model: EvalModel, examples: Sequence[Example], texts: Sequence[Sequence[str]], separator: str, legacy: bool
) -> Iterator[list[float]]:
    """The mean NLL of each of an example's texts after its prompt; `legacy`: with the end token behind each."""
    end = str(model.tokenizer.eos_token or "") if legacy else ""
    asked = [replace(e, text=text + end) for e, own in zip(examples, texts, strict=True) for text in own]
    scores = iter(token_scores(model, asked, separator=separator))
    for own in texts:
        yield [next(scores).mean_nll for _ in own]


def _right(example: Example) -> int:
    if len(example.choices) < 2 or example.answer is None:
        raise PlanError(
            f"example {example.id!r} has no wrong answers beside the right one",
            code="no-choices",
            hint="score a set that has them, such as forget10_perturbed of TOFU",
        )
    return example.answer


def _row(example: Example, values: dict[str, float]) -> Row:
    sample = {"prompt": example.prompt, "answer": example.text}
    return Row(example.id, values, group=example.group, unit=example.unit or example.id, sample=sample)
