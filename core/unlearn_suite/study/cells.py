"""All cells of a plan, each named by a hash of everything that can change its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from pydantic_core import to_jsonable_python

from .. import __version__
from ..plan.model import Arm, AttackUse, DataUse, MetricUse, Model, Plan, Problem, Stage
from ..plugins import Entry, blame
from ..plugins.source import HOST
from ..specs import Config
from .cell import Cell, Json
from .identity import canonical, content_hash, digest, fingerprint, versions_of

Identity = Callable[[Mapping[str, Any]], str]
# A checkpoint's spacing never changes a result: a resumed run ends with the same bits.
HARMLESS_TRAIN_KEYS = ("save_every",)
# Where activations are kept never changes a result; whether they are can change its last bits.
SAME_KEEP = ("auto", "memory", "disk")


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
        plugins = {HOST: __version__, **versions_of(entries)}
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
            training=self._training(problem, stages, identity, own, seed, sources, begins) if stages else {},
        )

    def _start(self, problem: Problem, model: str, sources: Json) -> Json:
        """The stages that make the model a problem begins with, and what they depend on; {} when there are none."""
        if not problem.start:
            return {}
        seed = self.plan.seeds[0]
        made = self._training(problem, problem.start, model, model, seed, sources, {})
        return {"stages": [_stage(stage) for stage in problem.start], "seed": seed, **made}

    def _training(
        self, problem: Problem, stages: Sequence[Stage], model: str, own: str, seed: int, sources: Json, begins: Json
    ) -> Json:
        """What the stages see and depend on: the roles that they name and no others, so that cells which differ in
        metrics and other roles share the result; and what their curves hold of metrics, of the model they begin with
        (`own`)."""
        named = {role for stage in stages for role in (*stage.roles, *stage.spec.optional_roles)}
        roles = [role for role in problem.data if role in named]
        entries = [*(stage.entry for stage in stages), *(use.entry for role in roles for use in problem.data[role])]
        matter = {
            "model": model,
            "data": {role: sources[role] for role in roles},
            "stages": [self._stage_identity(stage) for stage in stages],
            "precision": self.plan.compute.precision,
            "seed": seed,
            "plugins": {HOST: __version__, **versions_of(entries)},
            **begins,
            **_chat(problem.chat),
        }
        if watched := _watched(problem, stages):
            matter["watched"] = [self._metric_key(use, own, sources, seed, problem.chat) for use in watched]
        return {"data": roles, "key": digest(matter, 16)}

    def _attack(self, use: AttackUse, problem: Problem, sources: Json) -> Json:
        """An attack, and a name of all that it depends on beside the weights it is tried on."""
        roles = [role for role in problem.data if role in use.spec.roles_for(use.config)]
        entries = [use.entry, *(source.entry for role in roles for source in problem.data[role])]
        identity = self._attack_identity(use, problem)
        matter = {
            **{part: identity[part] for part in ("use", "with", "points")},
            "data": {role: sources[role] for role in roles},
            "plugins": {HOST: __version__, **versions_of(entries)},
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


def _watched(problem: Problem, stages: Sequence[Stage]) -> list[MetricUse]:
    """The metric entries that detectors read while the stages train."""
    names = {name for stage in stages if (watching := stage.train.diagnostics) for name in watching.metrics}
    return [use for use in problem.metrics if use.name in names]


def _points(use: AttackUse) -> list[Json]:
    with blame(cast(Entry, use.entry)):
        return [asdict(point) for point in use.config.points()]


def _is_control(arm: Arm, problem: Problem) -> bool:
    return arm.begin_for(problem) != ("start" if problem.start else "original")


def _stage(stage: Stage) -> Json:
    return {
        "use": stage.entry.qualified,
        "with": stage.config.model_dump(mode="json"),
        "train": stage.train.model_dump(mode="json"),
    }
