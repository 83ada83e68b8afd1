"""A plugin of one file that keeps every promise; the tests break it in one place at a time."""

import random
from typing import Literal

import torch
from pydantic import Field, field_serializer

from unlearn_suite import (
    Attack,
    AttackConfig,
    AttackPoint,
    AttackSpec,
    Config,
    DatasetSpec,
    Example,
    Loss,
    LossObjective,
    Metric,
    MetricSpec,
    ObjectiveSpec,
    ProblemSpec,
    Requirements,
    Row,
    ValueSpec,
    hookimpl,
    losses,
)

WORDS = ("sun", "sea", "hill", "rain", "cat", "dog", "bread", "clock")
RUNS = []


class Options(Config):
    """Options of `turn`."""

    weight: float = Field(1.0, ge=0)
    """weight of the retain term"""


class Turn(LossObjective[Options]):
    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1]), reads=1)

    def setup(self, ctx):
        super().setup(ctx)
        self.u = torch.randn(ctx.shape.hidden_size, generator=ctx.generator)
        self.count = 0
        self.kept = []

    def loss(self, batch):
        f, r = batch["forget"], batch["retain"]
        h = self.ctx.policy.hidden(f, [1])[1]
        k, k0 = (view.hidden(r, [1])[1] for view in (self.ctx.policy, self.ctx.reference))
        forget = f.mean(losses.cosine(h, self.u))
        return Loss({"forget": forget, "retain": r.mean(losses.relative_error(k, k0))}, {"retain": self.config.weight})

    def step(self, batch):
        return super().step(batch)


class WordOptions(Config):
    """Options of `words`."""

    part: Literal["train", "test"] = "train"
    """a fixed split"""
    loud: bool = False
    """in capitals"""


def load(config):
    words = WORDS[:5] if config.part == "train" else WORDS[5:]
    return [Example(f"{config.part}/{w}", f"the {w.upper() if config.loud else w} is here") for w in words]


def fingerprint(config):
    return config.model_dump_json()


class Surprise(Metric[Config]):
    def score(self, model, examples, seed):
        for example, score in zip(examples, model.rolling([e.text for e in examples]), strict=True):
            yield Row(example.id, {"nll": score.mean_nll})


class Strengths(AttackConfig):
    def points(self):
        return AttackPoint("weak"), AttackPoint("strong")


class Shake(Attack[Strengths]):
    def run(self, ctx):
        name = "model.layers.1.mlp.down_proj.weight"
        for point, size in zip(self.config.points(), (0.1, 1.0), strict=True):
            noise = torch.randn(ctx.parameters[name].shape, generator=ctx.generator)
            ctx.put(name, ctx.parameters[name] + size * noise)
            yield point


@hookimpl
def register_objectives(register):
    register(ObjectiveSpec("turn", "turn away", f"{__name__}:Turn", config=Options))


@hookimpl
def register_datasets(register):
    register(DatasetSpec("words", "words", f"{__name__}:load", WordOptions, fingerprint=f"{__name__}:fingerprint"))


@hookimpl
def register_metrics(register):
    nll = ValueSpec("surprise", better="lower", lowest=0)
    register(MetricSpec("surprise", "surprise", f"{__name__}:Surprise", {"nll": nll}))


@hookimpl
def register_attacks(register):
    register(AttackSpec("shake", "shake a matrix", f"{__name__}:Shake", Strengths))


@hookimpl
def register_problems(register):
    register(ProblemSpec("few-words", "forget words", f"{__name__}:few_words.yaml"))


USED = (random, field_serializer)  # by the broken versions
