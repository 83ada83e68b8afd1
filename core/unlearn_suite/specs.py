"""The shared words: what plugins register, and the one data record that all rooms pass on.

Everything here is light: importing it must never import torch. A spec names its code as
"package.module:attribute" and the host loads that only when a cell needs it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_NAME = re.compile(r"^[a-z0-9][a-z0-9.-]*$")
_TARGET = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


class Config(BaseModel):
    """Base of every options model: frozen, no unknown keys, every field documented by a docstring."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        defer_build=True,  # a command that only lists plugins validates no options
    )


class NoConfig(Config):
    """For a plugin object without options."""


class Lora(Config):
    """Low-rank adapters on the matrices an objective trains (Hu et al., arXiv:2106.09685), merged when it is done."""

    rank: int = Field(16, ge=1)
    """rank of the update of each matrix"""
    alpha: float = Field(32.0, gt=0)
    """the update is scaled by alpha / rank"""


DetectorName = Literal[
    "norm-ratio",
    "single-direction",
    "retain-kl",
    "retain-perplexity",
    "update",
    "norms-above",
    "junk-direction",
    "forget-word",
    "own-output",
    "quantisation",
    "probe",
]


class Diagnostics(Config):
    """Failure detectors of a stage (docs/reference/diagnostics.md). They read, and never change the training."""

    detectors: tuple[DetectorName, ...] = Field(
        ("norm-ratio", "single-direction", "retain-kl", "retain-perplexity", "update"), min_length=1
    )
    """which; `own-output` samples from the model, once before training and once after, and `norms-above`,
    `junk-direction` and `forget-word` read it to its end several times"""
    metrics: tuple[str, ...] = ()
    """entries of the problem's `metrics` that are scored before training and after, such as the toxicity that a probe
    is to lower; no objective sees them"""
    every: int = Field(10, ge=1)
    """steps between two measurements; the last step is always measured"""
    sample_every: int = Field(0, ge=0)
    """steps between two samples of `own-output`, and two scorings of `metrics`, while training (0 = only before and
    after)"""
    examples: int = Field(8, ge=2)
    """texts of each role that are read, the same ones every time"""
    probe_examples: int = Field(64, ge=8)
    """texts of each role that `probe` reads; it is fitted on one half of them and judged on the other"""
    metric_examples: int | None = Field(64, ge=1)
    """examples of each of `metrics` that are scored, the same ones every time (none = all)"""
    forget: str = "forget"
    """data role of the text to forget"""
    retain: str = "retain"
    """data role of the text to keep; text that is not trained on tells more"""

    @model_validator(mode="after")
    def _sampled(self) -> Diagnostics:
        if self.sample_every and "own-output" not in self.detectors and not self.metrics:
            raise ValueError(
                "`sample_every` is for the detector `own-output`, which `detectors` does not name, and for `metrics`"
            )
        return self


class Stop(Config):
    """A collapse guard: end the stage when text that is to be kept suffers, with the last weights that were good."""

    retain_kl: float | None = Field(None, gt=0)
    """largest KL(model at the start || model now), nats per token"""
    ppl_rise: float | None = Field(None, gt=0)
    """largest relative rise of the perplexity"""
    every: int = Field(5, ge=1)
    """steps between two measurements; the last step is always measured"""
    patience: int = Field(0, ge=0)
    """bad measurements in a row that are borne before the stage ends: some objectives shake the model at first and
    recover. However many, the weights that are kept are good ones"""
    examples: int = Field(16, ge=1)
    """texts that are measured, the same ones every time"""
    role: str | None = None
    """data role to measure on (none: texts of the role `retain`, a quarter of them at most, that are then kept out of
    the training)"""

    @model_validator(mode="after")
    def _limited(self) -> Stop:
        if self.retain_kl is None and self.ppl_rise is None:
            raise ValueError("a guard needs `retain_kl` or `ppl_rise`")
        return self


class Train(Config):
    """How a stage trains. In a plan these keys stand beside `use` and `with`."""

    steps: int = Field(60, ge=0)
    """optimizer steps"""
    lr: float = Field(3e-4, gt=0)
    """peak learning rate of AdamW"""
    batch: int = Field(8, ge=1)
    """examples per role and step"""
    micro_batch: int | None = Field(None, ge=1)
    """examples per role and forward pass; the gradient is that of the whole batch (none = no cutting)"""
    length: int = Field(128, ge=2)
    """tokens after which an example is cut"""
    end: bool = False
    """the end token follows every text that is not cut: so a model learns where answers end"""
    warmup: int = Field(0, ge=0)
    """steps over which the learning rate rises linearly from 0"""
    clip: float | None = Field(1.0, gt=0)
    """largest global gradient norm (none = no clipping)"""
    weight_decay: float = Field(0.0, ge=0)
    """decoupled weight decay"""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the first and second moment"""
    lora: Lora | None = None
    """train low-rank adapters instead of the matrices themselves (none = the matrices)"""
    recompute: bool = False
    """compute activations again in the backward pass instead of keeping them: less memory, more time"""
    keep: Literal["auto", "memory", "disk", "off"] = "auto"
    """what the untrained model computes (inputs of the lowest trained block, reference activations and log-probs) is
    computed once for a role whose examples come again within the stage, steps x batch > examples, and read after that;
    auto = in memory if it fits in a quarter of what is free, else in files below the run's shared/kept; off = computed
    in every step. Results agree to rounding with `off`, to the bit between the other three"""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit = its two moments in 8 bits (needs the extra `lowbit`): a quarter of the memory, not the same result"""
    compile: bool = False
    """torch.compile the trained part of the model: the same equations in other kernels, so equal to rounding only, also
    after a resume"""
    save_every: int = Field(25, ge=1)
    """steps between checkpoints inside the stage"""
    diagnostics: Diagnostics | None = None
    """measure signs of failure while training (none = do not)"""
    stop: Stop | None = None
    """end the stage at the last good step when kept text suffers (none = do all steps)"""


@dataclass(frozen=True)
class Example:
    """One example of any dataset.

    `prompt` is context that is given, `text` what is trained on or scored (a whole document, a
    continuation, an answer). `choices`/`answer` are for multiple choice. `group` is what results are
    grouped by (a subject, a target group); `unit` is what splits and resampling keep together (a fact,
    a prompt), by default the example itself.
    """

    id: str
    text: str = ""
    prompt: str = ""
    choices: tuple[str, ...] = ()
    answer: int | None = None
    group: str = ""
    unit: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


JUDGES_APART = 0.15
"""by how much the changes of a value in [0, 1] may differ between two judges before it is alarming"""
GROUP_BEHIND = 0.03
"""by how much one group of what is to be kept may fall more than the others before it is alarming"""
GROUP_LEAST = 5
"""a smaller group tells nothing"""


@dataclass(frozen=True)
class ValueSpec:
    """What one number of a metric's rows means, and how rows become one number.

    `aggregate`: "mean" = weighted mean over rows; "exp-mean" = exp of the weighted mean (perplexity from
    mean NLL per token weighted by token counts); "auc" = the probability that a row of the group "non-member" has a
    larger value than one of the group "member" (ties count half; rows of other groups do not count).

    `versus` makes a value that no row has: the report computes it from the rows' value `of`, relative to those of the
    arm called `oracle`. "ks" = log10 of the p-value of a two-sample Kolmogorov-Smirnov test over the rows; "privleak" =
    100 (A_oracle - A) / (1 - A_oracle) with A the "auc" of `of`.
    """

    summary: str
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    """which direction is good on data that should be KEPT; a problem entry's `want` overrides it"""
    chance: float | None = None
    lowest: float | None = None
    highest: float | None = None
    aggregate: Literal["mean", "exp-mean", "auc"] = "mean"
    versus: Literal["", "ks", "privleak"] = ""
    of: str = ""
    second: str = ""
    """name of the value in which another judge says the same: a change that one of the two does not see is doubtful"""
    reliability: str = ""
    """what published studies found of this measure, with the source; shown in the report"""


def _check(name: str, *targets: str) -> None:
    if not _NAME.match(name):
        raise ValueError(f"bad name {name!r}: use lower-case letters, digits, '-' and '.'")
    for target in targets:
        if not _TARGET.match(target):
            raise ValueError(f"bad target {target!r} of {name!r}: write 'package.module:attribute'")


def _check_roles(spec: ObjectiveSpec | AttackSpec) -> None:
    for role in spec.roles:
        if role.startswith("{") and role[1:-1] not in spec.config.model_fields:
            raise ValueError(f"role {role!r} of {spec.name!r} is none of its options")


def _roles_for(roles: tuple[str, ...], config: Config) -> tuple[str, ...]:
    return tuple(str(getattr(config, role[1:-1])) if role.startswith("{") else role for role in roles)


@dataclass(frozen=True)
class ObjectiveSpec:
    """An unlearning objective.

    `load` names a subclass of `Objective`. `roles` are the data roles each step's batch must hold; "{option}" stands
    for a role that an option names. `optional_roles` are there when the problem has them; no other role is to be seen.
    `train` overrides the engine's defaults of a stage, by `Train`'s field names. `presets` is a packaged YAML file,
    "package:path/in/package.yaml", of settings by name (see `plan.presets.PresetWords`).
    """

    name: str
    summary: str
    load: str
    config: type[Config] = NoConfig
    roles: tuple[str, ...] = ("forget", "retain")
    optional_roles: tuple[str, ...] = ()
    train: Mapping[str, Any] = field(default_factory=dict)
    presets: str = ""
    extras: tuple[str, ...] = ()
    paper: str = ""
    fidelity: Literal["faithful", "variant", "simplified", "reconstruction", ""] = ""
    kind: Literal["objective"] = "objective"

    def __post_init__(self) -> None:
        _check(self.name, self.load)
        _check_roles(self)

    def roles_for(self, config: Config) -> tuple[str, ...]:
        """The roles under these options."""
        return _roles_for(self.roles, config)


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset. `load` names `function(config) -> Sequence[Example]`, deterministic, in a fixed order.

    `fingerprint` names `function(config) -> str`, cheap, equal only if the examples are equal; without
    it the host hashes the examples themselves. `size` tells in words how much there is, such as "4,000 questions".
    """

    name: str
    summary: str
    load: str
    config: type[Config] = NoConfig
    fingerprint: str = ""
    licence: str = ""
    source: str = ""
    extras: tuple[str, ...] = ()
    size: str = ""
    kind: Literal["dataset"] = "dataset"

    def __post_init__(self) -> None:
        _check(self.name, self.load, *([self.fingerprint] if self.fingerprint else []))


@dataclass(frozen=True)
class MetricSpec:
    """A metric. `load` names a subclass of `Metric`; `values` describes each number of its rows.

    `combines`: the metric scores no examples; the report makes its one value from the headline values of the entries
    that its option `of` names. "harmonic" = their harmonic mean; "balanced" = the first of two, times
    min(x, 1 - x) / 0.5 of the second.
    """

    name: str
    summary: str
    load: str
    values: Mapping[str, ValueSpec]
    config: type[Config] = NoConfig
    needs_data: bool = True
    sampled: bool = False
    """True when scores depend on the seed (sampled text)"""
    by_example: bool = False
    """True when the row of an example hangs on that example alone (and on the seed): the host then gives the examples
    in parts, keeps the rows of each, and after a crash asks only for those that are missing. Text that is sampled
    must come from one `generate` call with one prompt per example, in their order"""
    combines: Literal["", "harmonic", "balanced"] = ""
    extras: tuple[str, ...] = ()
    paper: str = ""
    kind: Literal["metric"] = "metric"

    def __post_init__(self) -> None:
        _check(self.name, self.load)
        if not self.values:
            raise ValueError(f"metric {self.name!r} declares no values")
        for name, value in self.values.items():
            if isinstance(value, ValueSpec):  # what is none is told by the host
                self._check_source(name, value)
                if value.second and value.second not in self.values:
                    raise ValueError(
                        f"value {name!r} of {self.name!r} has {value.second!r} as its second, which is none"
                    )

    def _check_source(self, name: str, value: ValueSpec) -> None:
        """A value relative to the oracle is made of one that rows have."""
        if bool(value.versus) != bool(value.of):
            raise ValueError(f"value {name!r} of {self.name!r} needs both `versus` and `of`, or neither")
        if not value.of:
            return
        source = self.values.get(value.of)
        if source is None or source.versus:
            raise ValueError(f"value {name!r} of {self.name!r} is made of {value.of!r}, which no row has")
        if (value.versus == "privleak") != (source.aggregate == "auc"):
            raise ValueError(f"value {name!r} of {self.name!r}: privleak, and nothing else, is made of an auc")


@dataclass(frozen=True)
class ProblemSpec:
    """An unlearning problem: a packaged YAML fragment, "package:path/in/package.yaml"."""

    name: str
    summary: str
    fragment: str
    paper: str = ""
    kind: Literal["problem"] = "problem"

    def __post_init__(self) -> None:
        _check(self.name)
        if ":" not in self.fragment:
            raise ValueError(f"bad fragment {self.fragment!r} of {self.name!r}: write 'package:path.yaml'")


@dataclass(frozen=True)
class AttackPoint:
    """A moment of an attack at which the model is scored.

    `strength` tells the attacker's settings (a learning rate, a number of bits), `at` how far the attack is (steps).
    """

    strength: str
    at: int = 0

    @property
    def name(self) -> str:
        """Both, as part of the name of a metric entry."""
        return f"{self.strength},{self.at}" if self.at else self.strength


class AttackConfig(Config):
    """Base of an attack's options: they say beforehand when the model is scored."""

    def points(self) -> tuple[AttackPoint, ...]:
        """All points, each with a name of its own, in the order of the attack."""
        raise NotImplementedError


@dataclass(frozen=True)
class AttackSpec:
    """An attack on unlearned weights. `load` names a subclass of `Attack`; `roles` as in `ObjectiveSpec`,
    and no other role is to be seen."""

    name: str
    summary: str
    load: str
    config: type[AttackConfig]
    roles: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    paper: str = ""
    kind: Literal["attack"] = "attack"

    def __post_init__(self) -> None:
        _check(self.name, self.load)
        _check_roles(self)

    def roles_for(self, config: Config) -> tuple[str, ...]:
        """The roles under these options."""
        return _roles_for(self.roles, config)


Spec = ObjectiveSpec | DatasetSpec | MetricSpec | ProblemSpec | AttackSpec
