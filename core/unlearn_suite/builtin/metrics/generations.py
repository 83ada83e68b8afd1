"""Continuations to read side by side, with the statistics that show broken text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from ...evaluate.metric import Metric, Row
from ...evaluate.text import TEXT_STATISTICS, text_statistics
from ...specs import Config, Example, MetricSpec

if TYPE_CHECKING:
    from ...evaluate.model import EvalModel


class GenerationsConfig(Config):
    """Options of `generations`."""

    n: int = Field(1, ge=1)
    """continuations per prompt"""
    max_new_tokens: int = Field(40, ge=1)
    """tokens per continuation at most"""
    temperature: float = Field(0.0, ge=0)
    """0 = greedy decoding"""
    top_p: float = Field(1.0, gt=0, le=1)
    """mass of the nucleus that is sampled from (1 = everything)"""
    stop: tuple[str, ...] = ()
    """a continuation ends before the first of these strings"""
    limit: int | None = Field(None, ge=1)
    """only the first examples (none = all)"""


class Generations(Metric[GenerationsConfig]):
    """Continues `prompt`, or, where an example has none, `text`.

        distinct-n = different runs of n tokens / runs of n tokens, over all continuations of a prompt
        repetition = 4-grams that came before in their continuation / 4-grams;  length in tokens

    Source: distinct-n arXiv:1510.03055; repetition after arXiv:1908.04319 (seq-rep-4).
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        config = self.config
        examples = examples[: config.limit]
        prompts = [e.prompt or e.text for e in examples]
        outputs = model.generate(
            prompts,
            max_new_tokens=config.max_new_tokens,
            n=config.n,
            temperature=config.temperature,
            top_p=config.top_p,
            seed=seed,
            stop=config.stop,
        )
        for example, prompt, texts in zip(examples, prompts, outputs, strict=True):
            sample = {"prompt": prompt, "output": texts[0] if len(texts) == 1 else texts}
            values = text_statistics(texts, model.tokens(texts))
            yield Row(example.id, values, group=example.group, unit=example.unit or example.id, sample=sample)


SPEC = MetricSpec(
    name="generations",
    summary="continuations of the prompts, to be read, with length, diversity and repetition",
    load="unlearn_suite.builtin.metrics.generations:Generations",
    config=GenerationsConfig,
    values=TEXT_STATISTICS,
    sampled=True,
)
