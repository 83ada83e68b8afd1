"""The labelled text a run's probes are fitted on: on-policy continuations, or the problem's own roles."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from unlearn_suite import Example, StageContext, TrainingError

from ..metrics.scorers import scorer_of
from .config import ProbeDirectionsConfig
from .lengths import same_lengths

FEWEST = 20
"""examples of each class below which probes cannot be fitted"""
BUCKETS, TRAIN = 256, 179
"""what prompts are hashed into, and how many of these are fitted on"""


@dataclass(frozen=True)
class Corpus:
    """Toxic (1) and benign (0) examples, each split by prompt into train, validation and (with `test_share`) test.

    `prompts` are what the model can be asked to continue, in a fixed order.
    """

    toxic: list[Example]
    benign: list[Example]
    toxic_val: list[Example]
    benign_val: list[Example]
    source: str
    prompts: tuple[str, ...] = ()
    toxic_test: list[Example] = field(default_factory=list)
    benign_test: list[Example] = field(default_factory=list)

    @property
    def replies(self) -> list[Example]:
        """Benign continuations of prompts that were continued toxically as well; of any prompt if there are none."""
        toxic = {e.unit for e in self.toxic}
        continued = [e for e in self.benign if e.prompt]
        return [e for e in continued if e.unit in toxic] or continued


def build(ctx: StageContext, config: ProbeDirectionsConfig) -> Corpus:
    """Raises `TrainingError` when a class has too few examples."""
    prompts = [e for e in ctx.examples.get("prompts", ()) if e.prompt]
    if config.source == "on-policy" and prompts:
        toxic, benign = _on_policy(ctx, config, prompts)
        source = "on-policy"
    else:
        toxic = [e.example for e in ctx.roles["forget"].encoded]
        benign = [e.example for e in ctx.roles["retain"].encoded]
        source = "static"
    toxic, benign = (some(part, config.probe_texts) for part in (toxic, benign))
    if config.match_lengths:
        toxic, benign = same_lengths(toxic, benign, ctx.tokenizer)
    parts = [_split(part, config.test_share) for part in (toxic, benign)]
    if min(len(toxic), len(benign)) < FEWEST or not all(part for of_class in parts for part in of_class[:2]):
        raise TrainingError(
            f"only {len(toxic)} toxic and {len(benign)} benign texts to fit probes on; {FEWEST} of each are needed",
            code="too-few-probe-texts",
            hint="give more prompts or samples, lower toxic_from, or take `source: static`",
        )
    if config.test_share and not all(of_class[2] for of_class in parts):
        raise TrainingError(
            f"one class has no text in the test part, a share of {config.test_share:g} of the prompts",
            code="no-test-texts",
            hint="raise `test_share`, or give more prompts",
        )
    asked = [e.prompt for e in prompts or toxic if e.prompt]
    (toxic, toxic_val, toxic_test), (benign, benign_val, benign_test) = parts
    return Corpus(toxic, benign, toxic_val, benign_val, source, tuple(dict.fromkeys(asked)), toxic_test, benign_test)


def _on_policy(
    ctx: StageContext, config: ProbeDirectionsConfig, prompts: Sequence[Example]
) -> tuple[list[Example], list[Example]]:
    texts = ctx.services.memo(
        "on-policy",
        {
            "prompts": [e.prompt for e in prompts],
            "n": config.samples,
            "tokens": config.max_new_tokens,
            "top_p": config.top_p,
        },
        lambda: ctx.services.sample(
            [e.prompt for e in prompts],
            n=config.samples,
            max_new_tokens=config.max_new_tokens,
            temperature=1.0,
            top_p=config.top_p,
            seed=0,
        ),
    )
    scorer = scorer_of(config.scorer)
    toxic: list[Example] = []
    benign: list[Example] = []
    for prompt, outputs in zip(prompts, texts, strict=True):
        for i, (text, score) in enumerate(zip(outputs, scorer.score(outputs), strict=True)):
            if len(text.split()) < 3:
                continue
            unit = prompt.unit or prompt.id
            example = Example(f"{prompt.id}#{i}", text, prompt.prompt, group=prompt.group, unit=unit)
            if score >= config.toxic_from:
                toxic.append(example)
            elif score <= config.benign_to:
                benign.append(example)
    return toxic, benign


def some(examples: Sequence[Example], most: int) -> list[Example]:
    """At most `most` examples from everywhere in the list, the same ones on every call, in their order."""
    if len(examples) <= most:
        return list(examples)
    # Not the hash that splits them: those with the smallest of that would all be on one side.
    by_hash = sorted(range(len(examples)), key=lambda i: hashlib.sha256(f"some {examples[i].id}".encode()).digest())
    return [examples[i] for i in sorted(by_hash[:most])]


def _split(examples: Sequence[Example], test_share: float) -> tuple[list[Example], ...]:
    """Train, validation and test by prompt, fixed by hash: 70 / 30, the test part out of the 30."""
    parts: tuple[list[Example], ...] = ([], [], [])
    for example in examples:
        bucket = _bucket(example)
        parts[(bucket >= TRAIN) + (bucket >= _first_of_test(test_share))].append(example)
    return parts


def outside_test(examples: Sequence[Example], test_share: float) -> list[Example]:
    """The examples of all prompts but those that probes are judged on."""
    return [e for e in examples if _bucket(e) < _first_of_test(test_share)]


def _bucket(example: Example) -> int:
    return hashlib.sha256((example.unit or example.id).encode()).digest()[0]


def _first_of_test(test_share: float) -> int:
    return BUCKETS - round(BUCKETS * test_share)
