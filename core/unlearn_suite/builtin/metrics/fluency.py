"""How likely the untouched model, or a larger one, finds what the model writes: broken text is unlikely."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...evaluate.metric import Metric, Row
from ...evaluate.reference import reference_model
from ...evaluate.text import TEXT_STATISTICS, text_statistics
from ...specs import Config, Example, MetricSpec, ValueSpec

if TYPE_CHECKING:
    from ...evaluate.model import EvalModel


class FluencyConfig(Config):
    """Options of `fluency`. With those of another sampling metric on the same data, nothing is sampled twice."""

    n: int = Field(3, ge=1)
    """continuations per prompt"""
    max_new_tokens: int = Field(20, ge=1)
    """tokens per continuation at most"""
    temperature: float = Field(1.0, ge=0)
    """sampling temperature; 0 = greedy, all continuations of a prompt equal"""
    top_p: float = Field(0.9, gt=0, le=1)
    """mass of the nucleus that is sampled from"""
    reference: Literal["published"] | Path = "published"
    """the judge: the model before any stage of its cell, or a Hugging Face folder of a causal language model"""


class Fluency(Metric[FluencyConfig]):
    """Continues every prompt and reads the continuations with a reference model.

        perplexity = exp( - sum log p_ref(token | prompt, tokens before) / tokens ), over all continuations of a prompt

    Length, diversity and repetition are those of `generations`. Toxicity or recall that fell because the text broke
    shows here: the reference would not write it. Source: fluency in DExperts, arXiv:2105.03023, whose reference is a
    larger model.
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        config = self.config
        prompts = [e.prompt or e.text for e in examples]
        outputs = model.generate(
            prompts,
            max_new_tokens=config.max_new_tokens,
            n=config.n,
            temperature=config.temperature,
            top_p=config.top_p,
            seed=seed,
        )
        with self._judge(model) as judge:
            likely = nll_per_token(judge, prompts, outputs)
        for example, texts, nll in zip(examples, outputs, likely, strict=True):
            values = text_statistics(texts, model.tokens(texts))
            if nll is not None:
                values["perplexity"] = nll
            yield Row(example.id, values, group=example.group, unit=example.unit or example.id)

    @contextmanager
    def _judge(self, model: EvalModel) -> Iterator[EvalModel]:
        if isinstance(self.config.reference, Path):
            yield reference_model(self.config.reference, model, same_tokenizer=False)
        else:
            with model.published() as before:
                yield before


def nll_per_token(model: EvalModel, prompts: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[float | None]:
    """Nats per token of each prompt's continuations after the prompt; None where all are blank."""
    pairs = [
        (index, prompt, text)
        for index, (prompt, texts) in enumerate(zip(prompts, outputs, strict=True))
        for text in texts
        if text.strip()
    ]
    totals, tokens = [0.0] * len(prompts), [0] * len(prompts)
    for (index, _, _), scores in zip(pairs, model.logprobs([(p, text) for _, p, text in pairs]), strict=True):
        totals[index] -= scores.total
        tokens[index] += len(scores.tokens)
    return [t / n if n else None for t, n in zip(totals, tokens, strict=True)]


SPEC = MetricSpec(
    name="fluency",
    summary="perplexity of sampled continuations under the untouched model",
    load="unlearn_suite.builtin.metrics.fluency:Fluency",
    config=FluencyConfig,
    sampled=True,
    by_example=True,
    values={
        "perplexity": ValueSpec(
            "perplexity per token of the continuations under the reference model, over prompts",
            better="lower",
            lowest=1,
            aggregate="exp-mean",
        ),
        **TEXT_STATISTICS,
    },
)
