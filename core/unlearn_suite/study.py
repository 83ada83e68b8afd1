"""Plan x Catalog -> ordered cells, each named by a hash of everything that can change its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from pydantic_core import PydanticSerializationError, to_jsonable_python

from . import __version__
from .errors import PlanError, PluginError
from .plan.model import Arm, AttackUse, DataUse, EntryLike, MetricUse, Model, Plan, Problem, Stage
from .plugins import Entry, blame, load_target
from .specs import AttackPoint, Config, DatasetSpec

Json = dict[str, Any]
Identity = Callable[[Mapping[str, Any]], str]
HOST = "unlearn-suite"
# A checkpoint's spacing never changes a result: a resumed run ends with the same bits.
HARMLESS_TRAIN_KEYS = ("save_every",)
# Where activations are kept never changes a result; whether they are can change its last bits.
SAME_KEEP = ("auto", "memory", "disk")


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces. Equal values give equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = 64) -> str:
    """The first `length` hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Cell:
    """One problem x model x arm x seed, with every option resolved. JSON-able: it is cell.json.

    `data`: role -> [{"use", "with", "fingerprint"}]; `stages`: [{"use", "with", "train"}];
    `metrics`: [{"name", "use", "with", "data", "want", "show", "key", "combines", "summary", "values"}], `key` naming
    the scores of the base model, which all cells with an equal key share, `combines` as in `MetricSpec` (such an
    entry is not scored), and `values` holding each value's `ValueSpec`. `use` is always "distribution/name".
    `compute` never changes a result. `plugins` maps each distribution that is used to its version.
    `start`: what the stages begin from, {"from", "control"}: the published model ("original"), one of random weights
    ("random"), or ("start") the model that its "stages" with "seed" make of the roles "data", named by "key".
    "control": the problem itself begins from another one, so this arm only stands beside the others.
    `chat`: prompts are turns of the model's chat template, in training and evaluation.
    `attacks`, on the unlearned weights: [{"name", "use", "with", "points", "scores", "data", "key"}], `scores` naming
    the metric entries that are scored at each of the `points` ({"strength", "at"}), `data` the roles that the attack
    sees. `training`: {"data", "key"}, the roles that the stages see and a name of everything that decides the weights
    they end with: cells with an equal key take them over from one another. {} without stages.
    """

    id: str
    problem: str
    model: str
    arm: str
    seed: int
    model_ref: Json
    data: dict[str, list[Json]]
    stages: list[Json]
    metrics: list[Json]
    precision: str
    compute: Json
    plugins: dict[str, str]
    summary: Json
    start: Json = field(default_factory=lambda: {"from": "original", "control": False})
    chat: bool = False
    attacks: list[Json] = field(default_factory=list)
    training: Json = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The cell's folder name below `cells/`."""
        return f"{self.problem}.{self.model}.{self.arm}.s{self.seed}.{self.id}"

    @property
    def is_base(self) -> bool:
        """True for an arm without stages that begins as the problem does: the untouched model."""
        return not self.stages and not self.start["control"]

    @property
    def trains(self) -> bool:
        """False when no stage is ever run for this cell."""
        return bool(self.stages or self.start.get("stages"))

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        """The cell of a cell.json. Raises KeyError when a field is missing; ignores unknown ones."""
        later = ("start", "chat", "attacks", "training")
        return cls(**{one.name: data[one.name] for one in fields(cls) if one.name not in later or one.name in data})


def build_cells(plan: Plan, *, identity: Identity) -> list[Cell]:
    """All cells of a plan, in the order to run them: the base model of each problem and model first.

    `identity` gives the content id of a model reference. Raises SuiteError when a model or a dataset
    cannot be identified.
    """
    return list(_Study(plan, identity).cells())


class _Study:
    """Remembers what is dear to compute: model identities, dataset fingerprints, hashes of files."""

    def __init__(self, plan: Plan, identity: Identity) -> None:
        self.plan = plan
        self._models = {model.label: identity(model.ref) for model in plan.models}
        self._fingerprints: dict[str, str] = {}
        self._files: dict[Path, str] = {}

    def cells(self) -> Iterator[Cell]:
        for problem in self.plan.problems:
            arms = [arm for arm in self.plan.arms if arm.applies_to(problem)]
            base = [arm for arm in arms if not arm.stages_for(problem)]
            base.sort(key=lambda arm: _is_control(arm, problem))
            trained = [arm for arm in arms if arm.stages_for(problem)]
            for model in self.plan.models:
                for arm in base:
                    yield self._cell(problem, model, arm, self.plan.seeds[0])
                for seed in self.plan.seeds:
                    for arm in trained:
                        yield self._cell(problem, model, arm, seed)

    def _cell(self, problem: Problem, model: Model, arm: Arm, seed: int) -> Cell:
        data = {role: [self._data(use) for use in uses] for role, uses in problem.data.items()}
        sources = {
            role: [self._data_identity(use, shown) for use, shown in zip(uses, data[role], strict=True)]
            for role, uses in problem.data.items()
        }
        stages = arm.stages_for(problem)
        identity = self._models[model.label]
        start = self._start(problem, identity, sources)
        begun = f"{identity}+{start['key']}" if start else identity
        begin = arm.begin_for(problem)
        chat = problem.chat
        metrics = [self._metric(use, begun, sources, seed, chat) for use in problem.metrics]
        attacks = [use for use in self.plan.attacks if stages and use.applies_to(problem)]
        uses = [use.entry for group in problem.data.values() for use in group]
        entries = [
            *uses,
            *(stage.entry for stage in stages),
            *(m.entry for m in problem.metrics),
            *(a.entry for a in attacks),
        ]
        plugins = {HOST: __version__, **_versions(entries)}
        precision = self.plan.compute.precision
        own = begun if begin == "start" else identity
        begins = {"start": start["key"] if begin == "start" else begin} if begin != "original" else {}
        matter = {
            "model": identity,
            "data": sources,
            "stages": [self._stage_identity(stage) for stage in stages],
            "metrics": {
                use.name: self._metric_key(use, own, sources, seed, chat)
                for use in problem.metrics
                if not use.spec.combines
            },
            "precision": precision,
            "seed": seed,
            "plugins": plugins,
            **begins,
            **_chat(chat),
            **({"attacks": [self._attack_identity(use, problem) for use in attacks]} if attacks else {}),
        }
        return Cell(
            id=digest(matter, 10),
            problem=problem.label,
            model=model.label,
            arm=arm.name,
            seed=seed,
            model_ref=dict(model.ref),
            data=data,
            stages=[_stage(stage) for stage in stages],
            metrics=metrics,
            precision=precision,
            compute=self.plan.compute.model_dump(mode="json"),
            plugins=dict(sorted(plugins.items())),
            summary={"problem": problem.summary, "source": problem.source, "family": arm.family},
            start={"from": begin, "control": _is_control(arm, problem), **(start if begin == "start" else {})},
            chat=chat,
            attacks=[self._attack(use, problem, sources) for use in attacks],
            training=self._training(problem, stages, identity, seed, sources, begins) if stages else {},
        )

    def _start(self, problem: Problem, model: str, sources: Json) -> Json:
        """The stages that make the model a problem begins with, and what they depend on; {} when there are none."""
        if not problem.start:
            return {}
        seed = self.plan.seeds[0]
        made = self._training(problem, problem.start, model, seed, sources, {})
        return {"stages": [_stage(stage) for stage in problem.start], "seed": seed, **made}

    def _training(
        self, problem: Problem, stages: Sequence[Stage], model: str, seed: int, sources: Json, begins: Json
    ) -> Json:
        """What the stages see and depend on: the roles that they name and no others, so that cells which differ in
        metrics and other roles share the result."""
        named = {role for stage in stages for role in (*stage.roles, *stage.spec.optional_roles)}
        roles = [role for role in problem.data if role in named]
        entries = [*(stage.entry for stage in stages), *(use.entry for role in roles for use in problem.data[role])]
        matter = {
            "model": model,
            "data": {role: sources[role] for role in roles},
            "stages": [self._stage_identity(stage) for stage in stages],
            "precision": self.plan.compute.precision,
            "seed": seed,
            "plugins": {HOST: __version__, **_versions(entries)},
            **begins,
            **_chat(problem.chat),
        }
        return {"data": roles, "key": digest(matter, 16)}

    def _attack(self, use: AttackUse, problem: Problem, sources: Json) -> Json:
        """An attack, and a name of all that it depends on beside the weights it is tried on."""
        roles = [role for role in problem.data if role in use.spec.roles_for(use.config)]
        entries = [use.entry, *(source.entry for role in roles for source in problem.data[role])]
        identity = self._attack_identity(use, problem)
        matter = {
            **{part: identity[part] for part in ("use", "with", "points")},
            "data": {role: sources[role] for role in roles},
            "plugins": {HOST: __version__, **_versions(entries)},
        }
        return {**_attack(use, problem), "data": roles, "key": digest(matter, 16)}

    def _data(self, use: DataUse) -> Json:
        options = use.config.model_dump(mode="json")
        key = canonical([use.entry.qualified, options])
        if key not in self._fingerprints:
            with blame(cast(Entry, use.entry)):
                self._fingerprints[key] = fingerprint(use.entry, use.config)
        return {"use": use.entry.qualified, "with": options, "fingerprint": self._fingerprints[key]}

    def _data_identity(self, use: DataUse, shown: Json) -> Json:
        """What of a dataset can change a result: not where its files lie, the fingerprint knows them."""
        options = self._options(use.config, lambda path: "")
        return {"use": shown["use"], "with": options, "fingerprint": shown["fingerprint"]}

    def _stage_identity(self, stage: Stage) -> Json:
        train = stage.train.model_dump(mode="json")
        kept = {key: value for key, value in train.items() if key not in HARMLESS_TRAIN_KEYS}
        kept["keep"] = kept["keep"] in SAME_KEEP
        return {"use": stage.entry.qualified, "with": self._options(stage.config, self._file), "train": kept}

    def _attack_identity(self, use: AttackUse, problem: Problem) -> Json:
        return {**_attack(use, problem), "with": self._options(use.config, self._file)}

    def _metric(self, use: MetricUse, model: str, sources: Mapping[str, Any], seed: int, chat: bool) -> Json:
        """A metric entry; its key names the base model's scores and is equal only if they are."""
        return {
            "name": use.name,
            "use": use.entry.qualified,
            "with": use.config.model_dump(mode="json"),
            "data": use.data,
            "want": use.want,
            "show": list(use.show),
            "key": self._metric_key(use, model, sources, seed, chat),
            "combines": use.spec.combines,
            "summary": use.spec.summary,
            "values": {name: asdict(value) for name, value in use.spec.values.items()},
        }

    def _metric_key(self, use: MetricUse, model: str, sources: Mapping[str, Any], seed: int, chat: bool) -> str:
        matter = {
            "model": model,
            "use": use.entry.qualified,
            "with": self._options(use.config, self._file),
            "data": sources[use.data] if use.data is not None else None,
            "precision": self.plan.compute.precision,
            "versions": [__version__, use.entry.version],
            **({"seed": seed} if use.spec.sampled else {}),
            **_chat(chat),
        }
        return digest(matter, 16)

    def _options(self, config: Config, on_path: Callable[[Path], str]) -> Any:
        """Options as JSON, each path replaced by what `on_path` says of it."""

        def replaced(value: Any) -> Any:
            if isinstance(value, Path):
                return on_path(value)
            if isinstance(value, dict):
                return {str(key): replaced(item) for key, item in value.items()}
            if isinstance(value, list | tuple):
                return [replaced(item) for item in value]
            return to_jsonable_python(value)

        return replaced(config.model_dump())

    def _file(self, path: Path) -> str:
        """The content hash of a file, or of everything in a folder."""
        if path not in self._files:
            self._files[path] = content_hash(path)
        return self._files[path]


def _by_distribution(entries: Iterable[EntryLike]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for entry in entries:
        found.setdefault(entry.distribution, set()).add(entry.version)
    return found


def _versions(entries: Iterable[EntryLike]) -> dict[str, str]:
    """{distribution: version}; of plugin files of one name, all versions."""
    return {name: ", ".join(sorted(versions)) for name, versions in _by_distribution(entries).items()}


def check_versions(plugins: Mapping[str, str], entries: Iterable[EntryLike], where: str) -> None:
    """Raises `PlanError` when a plugin of a cell is no longer in the version that the cell was planned with."""
    have = _by_distribution(entries)
    for name, versions in plugins.items():
        if name in have and not set(versions.split(", ")) <= have[name]:
            raise PlanError(
                f"the plugin {name} changed while the run was under way",
                code="plugin-changed",
                where=where,
                hint="run the command again: what was made with it before is kept apart",
            )


def _chat(chat: bool) -> Json:
    """What chat turns add to an identity: nothing where there are none."""
    return {"chat": True} if chat else {}


def _attack(use: AttackUse, problem: Problem) -> Json:
    return {
        "name": use.name,
        "use": use.entry.qualified,
        "with": use.config.model_dump(mode="json"),
        "points": _points(use),
        "scores": list(use.scored(problem)),
    }


def _points(use: AttackUse) -> list[Json]:
    with blame(cast(Entry, use.entry)):
        return [asdict(point) for point in use.config.points()]


@dataclass(frozen=True)
class Attacked:
    """A metric entry that is scored at a point of an attack."""

    attack: str
    point: AttackPoint
    metric: str

    @property
    def name(self) -> str:
        """What its scores are called."""
        return f"{self.metric}@{self.attack} {self.point.name}"


def attacked(attacks: Sequence[Mapping[str, Any]]) -> Iterator[Attacked]:
    """All that the `attacks` of a cell score, in the order in which they do."""
    for attack in attacks:
        for point in attack["points"]:
            yield from (Attacked(attack["name"], AttackPoint(**point), metric) for metric in attack["scores"])


def _is_control(arm: Arm, problem: Problem) -> bool:
    return arm.begin_for(problem) != ("start" if problem.start else "original")


def fingerprint(entry: EntryLike, config: Config, examples: Sequence[Any] | None = None) -> str:
    """The dataset's own fingerprint, or the hash of its `examples` (None: they are loaded). Raises `PluginError`."""
    spec = entry.spec
    assert isinstance(spec, DatasetSpec)
    if spec.fingerprint:
        return str(load_target(spec.fingerprint)(config))
    found: Sequence[Any] = load_target(spec.load)(config) if examples is None else examples
    try:
        return digest([to_jsonable_python(asdict(example)) for example in found])
    except (PydanticSerializationError, ValueError) as error:
        message = f"dataset {entry.qualified!r} has an example whose `meta` is not plain data: {error}"
        hint = "use text, numbers, lists and mappings in `meta`"
        raise PluginError(message, code="plugin-data", where=entry.distribution, hint=hint) from error


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of all files in a folder."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest([[file.relative_to(path).as_posix(), content_hash(file)] for file in files])


def _stage(stage: Stage) -> Json:
    return {
        "use": stage.entry.qualified,
        "with": stage.config.model_dump(mode="json"),
        "train": stage.train.model_dump(mode="json"),
    }
