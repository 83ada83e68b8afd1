"""The words of a plan and of a problem fragment, before any plugin is asked.

What an entry means (an objective's options, say) is checked when it is resolved; these models know the
keys and the types. They are also the source of the JSON schema.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ..specs import Config, Train
from .sweep import MOST_POINTS

LABEL = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Label = Annotated[str, Field(pattern=LABEL)]
Want = Literal["lower", "higher", "keep", "watch"]
Of = Literal["after", "change", "relative_change", "over_oracle"]
UNBOUNDED = "an expectation needs `below` or `above`"


class Compute(Config):
    """Where and how cells run. Only `precision` is part of a cell's identity; `device`, `devices`, `threads` and
    `eval_tokens` change results by rounding."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """number format of the model's weights (bf16 keeps fp32 masters of what is trained)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto = cuda when there is one"""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of each process (none = the library's choice)"""
    executor: Literal["local"] = "local"
    """where the processes run"""
    workers: int = Field(default=1, ge=1)
    """cells that run at the same time"""
    devices: int = Field(default=1, ge=1)
    """processes that train one cell together, each on a device of its own, with the weights spread over them"""
    eval_tokens: int = Field(default=2048, ge=16)
    """tokens of one evaluation batch"""
    patches: Literal["keep", "drop"] = "keep"
    """keep = the weights that each cell made; drop = they go once they are scored and attacked, for sweeps that would
    fill the disk (what needs them later, such as a new metric, trains the cell again)"""

    @model_validator(mode="after")
    def _one_way_to_use_devices(self) -> Compute:
        if self.workers > 1 and self.devices > 1:
            raise ValueError("`workers` and `devices` are both above 1: the cells would share their devices")
        return self


class Bounds(Config):
    """Which number of a metric entry, and between what it should lie."""

    value: str | None = None
    """value of the metric (none = the entry's headline, the first of `show`)"""
    of: Of = "after"
    """after = the score itself, change = after - before, relative_change = change / before, over_oracle = after - that
    of the arm called oracle"""
    below: float | None = None
    """the number must be smaller than this"""
    above: float | None = None
    """the number must be larger than this"""

    @property
    def bounded(self) -> bool:
        return self.below is not None or self.above is not None


class LimitWords(Bounds):
    """One line of a problem's `expect`: what every arm that unlearns should reach. The report tells whether it does."""

    metric: str
    """metric entry of the problem"""

    @model_validator(mode="after")
    def _bounded(self) -> LimitWords:
        if not self.bounded:
            raise ValueError(UNBOUNDED)
        return self


class GateWords(Bounds):
    """One line of `expect`: numbers of the results that must hold, else the run ends with exit code 5."""

    problem: str
    """label of a problem of this plan"""
    arm: str
    """name of an arm of this plan"""
    metric: str | None = None
    """metric entry of that problem (none = all that the problem itself expects)"""

    @model_validator(mode="after")
    def _bounded(self) -> GateWords:
        if self.metric is None and (self.bounded or self.value is not None):
            raise ValueError("an expectation with `value`, `below` or `above` needs `metric`")
        if self.metric is not None and not self.bounded:
            raise ValueError(UNBOUNDED)
        return self


class ModelWords(Config):
    """A base model: exactly one of `asset`, `hf` and `path`."""

    asset: str | None = None
    """name in the registry (`unlearn-suite models list`)"""
    hf: str | None = None
    """id on the Hugging Face hub; needs `revision`"""
    path: str | None = None
    """folder of a Hugging Face checkpoint, from the plan's own folder"""
    revision: str | None = None
    """commit of the hub repository"""
    trust_remote_code: bool = False
    """run Python code that the model's repository brings"""

    @model_validator(mode="after")
    def _one_source(self) -> ModelWords:
        given = [key for key in ("asset", "hf", "path") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"a model is exactly one of `asset`, `hf` and `path`, found {found}")
        if (self.hf is None) != (self.revision is None):
            raise ValueError("`hf` needs `revision`, the commit to use, and only `hf` takes it")
        return self


class UseWords(Config):
    """Something a plugin brings, with its options."""

    use: str
    """name, or distribution/name"""
    options: dict[str, Any] | None = Field(default=None, alias="with")
    """its options (`unlearn-suite plugins show NAME`)"""


class StageWords(Train):
    """An objective, its options, and how it trains."""

    use: str
    """objective name, or distribution/name"""
    preset: str | None = None
    """settings its plugin ships for a kind of model; what is written here and under `with` goes before them"""
    options: dict[str, Any] | None = Field(default=None, alias="with")
    """its options (`unlearn-suite plugins show NAME`)"""


class MetricWords(Config):
    """A metric of a problem."""

    name: Label | None = None
    """label of the entry (none = the name in `use`)"""
    use: str
    """metric name, or distribution/name"""
    data: str | None = None
    """data role the metric reads; none for a metric that needs no data"""
    options: dict[str, Any] | None = Field(default=None, alias="with")
    """the metric's options"""
    want: Want = "keep"
    """where the value should go: lower or higher (forgetting), keep, or watch (shown, not judged)"""
    show: list[str] | None = Field(default=None, min_length=1)
    """values for the summary table, the headline first (none = the metric's first value)"""


class AttackWords(Config):
    """An attack on the unlearned weights of every arm."""

    name: Label | None = None
    """what it is called in the results (none = the name in `use`)"""
    use: str
    """attack name, or distribution/name"""
    options: dict[str, Any] | None = Field(default=None, alias="with")
    """its options (`unlearn-suite plugins show NAME`)"""
    scores: list[str] | None = Field(default=None, min_length=1)
    """metric entries that are scored under attack (none = those with `want: lower` or `higher`)"""
    only: list[str] | None = Field(default=None, min_length=1)
    """labels of the problems it is for (none = all)"""


class ArmWords(Config):
    """What is compared: stages of objectives, or another arm with changes."""

    stages: list[Any] | Literal["default", "oracle"] | None = None
    """objectives, trained one after the other; [] is the untouched model, a word what each problem brings"""
    begin: Literal["original", "random"] | None = Field(default=None, alias="from")
    """original = the published model, random = random weights (none = as the problem starts, an oracle: original)"""
    like: str | None = None
    """name of the arm to copy"""
    changes: dict[str, Any] | None = Field(default=None, alias="set")
    """changes to the copy, such as `0.with.block: 7` (stages count from 0)"""
    only: list[str] | None = Field(default=None, min_length=1)
    """labels of the problems this arm is for (none = all)"""
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = Field(default=None, min_length=1)
    """one arm for each value, such as `0.with.retain_weight: [10, 30, 100]`; of several keys, for each combination"""
    family: Label | None = None
    """arms of one family are one front in the report (none = the name of a swept arm, else no family)"""

    @model_validator(mode="after")
    def _one_form(self) -> ArmWords:
        points = math.prod(map(len, (self.sweep or {}).values()))
        if points > MOST_POINTS:
            raise ValueError(f"the sweep has {points} points; {MOST_POINTS} at most")
        if (self.stages is None) == (self.like is None):
            raise ValueError("an arm has either `stages` or `like`")
        if self.changes is not None and self.like is None:
            raise ValueError("`set` changes the arm named by `like`; there is none here")
        return self


class StagesWords(Config):
    """Stages that a problem brings."""

    stages: list[Any]
    """objectives, trained one after the other"""


class ProblemUseWords(Config):
    """A problem that a plugin ships, with changes."""

    use: str
    """problem name, or distribution/name"""
    label: Label | None = Field(default=None, alias="as")
    """what it is called in the results (none = its name)"""
    options: dict[str, Any] | None = Field(default=None, alias="with")
    """what its `parameters` ask for (`unlearn-suite plugins show NAME`)"""
    data: dict[str, Any] | None = None
    """changes to its data roles, merged deeply; further roles; null drops a role"""
    metrics: dict[str, Any] | None = None
    """changes to its metric entries, by their names; further entries; null drops an entry"""
    changes: dict[str, Any] | None = Field(default=None, alias="set")
    """changes to the stages it brings, such as `start.0.steps: 100` (also `default`, `oracle`; stages count from 0)"""
    chat: bool | None = None
    """whether prompts are chat turns (none = as the problem says, which is no unless it says yes)"""
    expect: list[Any] | None = None
    """what its arms should reach, in place of what the problem expects"""


class _ProblemBody(Config):
    summary: str = ""
    """one sentence: what is forgotten and what is kept"""
    data: dict[str, Any]
    """role -> dataset or list of datasets"""
    metrics: list[Any] = []  # noqa: RUF012 (pydantic copies it)
    """metric entries"""
    start: StagesWords | None = None
    """stages that make the model it begins with: every arm starts from it, and is compared with it"""
    default: StagesWords | None = None
    """the arm to run when a plan names none"""
    oracle: StagesWords | None = None
    """stages, from the original model, of an arm that never saw what is to be forgotten"""
    expect: list[Any] = []  # noqa: RUF012
    """what every arm that unlearns should reach; told in the report, and in the exit code where the plan's own `expect`
    asks for it"""
    chat: bool = False
    """each prompt is a turn of the user in the model's own chat template, what follows it the assistant's, in training
    and evaluation alike; text without a prompt stays as it is"""


class ProblemWords(_ProblemBody):
    """A problem written in the plan itself."""

    name: Label
    """its label"""


class FragmentWords(_ProblemBody):
    """A problem that a plugin ships: a YAML file in its package."""

    problem: Label
    """its name"""
    parameters: dict[str, Any] = {}  # noqa: RUF012
    """name -> what a plan tells under `with`; `$name` stands for it in the texts of this file. A data role with
    `when: $name` is there only where that is given, and so are the entries that read it"""


class PlanWords(Config):
    """A plan, version 1."""

    plan: Literal[1]
    """version of the format"""
    name: Label | None = None
    """name of the run directory (none = the file's name)"""
    plugins: list[str] = []  # noqa: RUF012
    """Python files with plugins of your own, from the plan's folder"""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """each cell runs once per seed"""
    models: dict[str, Any] | None = Field(default=None, min_length=1)
    """label -> base model (none = the registry's smollm2-135m-instruct: 93 MB to download, 0.5 GB on disk)"""
    problems: list[Any] = Field(min_length=1)
    """what is to be forgotten: problem names, or problems written out"""
    arms: dict[str, Any] | None = Field(default=None, min_length=1)
    """what is compared on every problem (none = the base model, each problem's default arm, and its oracle where it
    ships one)"""
    attacks: list[Any] = []  # noqa: RUF012
    """attacks on what each arm has made; the weights are changed, scored and put back bit for bit"""
    metrics: list[Any] = []  # noqa: RUF012
    """metric entries added to every problem"""
    compute: Compute = Compute()
    """where and how to run"""
    expect: list[Any] = []  # noqa: RUF012
    """what must hold in the results"""

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if twice:
            raise ValueError(f"seed {twice[0]} is listed twice")
        return seeds
