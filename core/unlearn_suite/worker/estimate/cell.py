"""One cell: its stages, metrics and attacks, the device it will run on, and whether it fits."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...engine.kept import MEMORY_SHARE
from ...engine.preflight import AttackPlan, Family, StageEstimate, StagePlan, estimate_stage
from ...evaluate.memory import ScoreMemory
from ...evaluate.metric import Metric
from ...models.memory import free_memory
from ...models.outline import outline
from ...plugins import blame, load_target
from ...specs import MetricSpec, ObjectiveSpec, Train
from ...study import canonical
from ..inputs import Inputs
from ..loaded import DTYPES, chat_of, device_of
from .attacking import AttackNeeds, attack_needs
from .counting import CountingModel
from .process import resident
from .reasons import doubts, reason_of
from .scoring import ScoringEstimate, estimate_passes

if TYPE_CHECKING:
    from ...plugins import Catalog
    from ...runner.progress import Progress
    from ...study import Cell

CUDA_CONTEXT = 600 * 2**20
"""bytes that CUDA and its libraries take on a device beside torch's tensors (about; it depends on the device)"""


@dataclass(frozen=True)
class CellEstimate:
    """What one cell takes. Bytes.

    `device`: "cuda" or "cpu". `device_bytes`: the most on the device at once; on a CPU the resident memory of the
    whole process. `host_bytes`: RAM beside a GPU (0 on a CPU: it is in `device_bytes`). `disk_bytes`: patches and
    checkpoints while it runs, `left_bytes`: the patch that stays. `flops`: by part (start, setup, train, score, attack
    with what is scored on its way); what makes the model that several cells start from counts for the first of them.
    `by_phase`: `device_bytes` by phase. `free_bytes`, `free_disk`: what is free now. `fits`: None where that is not
    known. `notes`: what is only estimated.
    """

    id: str
    folder: str
    device: str
    device_bytes: int
    host_bytes: int
    disk_bytes: int
    left_bytes: int
    flops: Mapping[str, int]
    by_phase: Mapping[str, int]
    free_bytes: int | None
    free_disk: int
    notes: tuple[str, ...] = field(default=())

    @property
    def peak_phase(self) -> str:
        """The phase that takes the most on the device; "" where none takes anything."""
        return max(self.by_phase, key=self.by_phase.__getitem__, default="")

    @property
    def fits(self) -> bool | None:
        if self.disk_bytes > self.free_disk:
            return False
        return None if self.free_bytes is None else self.device_bytes <= self.free_bytes

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "fits": self.fits}


def estimate_cells(cells: Sequence[Cell], catalog: Catalog, disk: Path, progress: Progress) -> Iterator[CellEstimate]:
    """One estimate per cell, in order. What cells share is computed once; seeds share everything."""
    estimator = _Estimator(catalog, disk, progress)
    for cell in cells:
        yield estimator.cell(cell)


class _Estimator:
    def __init__(self, catalog: Catalog, disk: Path, progress: Progress) -> None:
        self.catalog = catalog
        self.disk = _existing(disk)
        self.progress = progress
        self._known: dict[str, Any] = {}
        self._starts: set[str] = set()

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        text = canonical(key)
        if text not in self._known:
            self._known[text] = make()
        return self._known[text]

    def cell(self, cell: Cell) -> CellEstimate:
        device = device_of(cell)
        inputs = Inputs(cell, self.catalog)
        inputs.load(self.progress)
        model, tokenizer = self._once(["model", cell.model_ref], lambda: outline(cell.model_ref))
        family = self._once(["family", cell.model_ref, cell.precision], lambda: Family(model, DTYPES[cell.precision]))
        key = [cell.model_ref, cell.precision, cell.data, cell.chat]
        self.progress.begin(f"estimating {cell.arm}", None)
        stages: list[StageEstimate] = [
            self._once([*key, stage], partial(self._stage, stage, family, tokenizer, inputs)) for stage in cell.stages
        ]
        start: list[StageEstimate] = [
            self._once([*key, "start", stage], partial(self._stage, stage, family, tokenizer, inputs))
            for stage in cell.start.get("stages", ())
        ]
        metrics = [{**entry, "key": ""} for entry in cell.metrics]  # which has the seed in it
        scoring, missing = self._once(
            [*key, metrics, [vars(s) for stage in stages for s in stage.sampled]],
            lambda: self._scoring(cell, family, tokenizer, inputs, stages),
        )
        changed = sorted({name for stage in stages for name in stage.changed})
        attacks = [
            self._once([*key, attack, changed], partial(self._attack, attack, family, tokenizer, inputs, changed))
            for attack in cell.attacks
        ]
        self.progress.end()
        noted = (
            family.weight_bytes() if cell.start["from"] == "random" else max((s.patch_bytes for s in start), default=0)
        )
        first = cell.start.get("key") not in self._starts
        self._starts.add(str(cell.start.get("key")))
        libraries = len({name.partition(".")[0] for name in sys.modules})  # what was traced may have imported some
        process = self._once(["process", bool(cell.stages), libraries], resident)
        left = _patch_bytes(family, cell, [*start, *stages]) if cell.compute.get("patches") != "drop" else 0
        return self._sum(cell, device, stages, scoring, missing, start if first else (), noted, left, attacks, process)

    def _stage(self, stage: Mapping[str, Any], family: Family, tokenizer: Any, inputs: Inputs) -> StageEstimate:
        entry = self.catalog.find("objective", stage["use"])
        spec = entry.spec
        assert isinstance(spec, ObjectiveSpec)
        with blame(entry):
            kind = load_target(spec.load)
            config = spec.config(**stage["with"])
            train, roles = Train(**stage["train"]), spec.roles_for(config)
            plan = StagePlan(lambda: kind(config), train, roles, inputs.roles, chat=inputs.cell.chat)
            return estimate_stage(family, tokenizer, plan)

    def _attack(
        self, attack: Mapping[str, Any], family: Family, tokenizer: Any, inputs: Inputs, changed: Sequence[str]
    ) -> AttackNeeds:
        cell = inputs.cell
        entries = [entry for entry in cell.metrics if entry["name"] in attack["scores"]]
        model = self._counting(cell, family, tokenizer)
        scoring, _ = self._passes(model, entries, family, inputs)  # what is missing is told of the cell's own scoring
        entry = self.catalog.find("attack", attack["use"])
        plan = partial(AttackPlan, examples=inputs.roles, changed=changed, chat=cell.chat)
        return attack_needs(entry, attack, plan, family, tokenizer, scoring)

    def _scoring(
        self, cell: Cell, family: Family, tokenizer: Any, inputs: Inputs, stages: Sequence[StageEstimate]
    ) -> tuple[ScoringEstimate, list[str]]:
        """Of the metrics, and of what stages have the model write in their setup."""
        model = self._counting(cell, family, tokenizer)
        for sampled in (s for stage in stages for s in stage.sampled):
            model.generate(
                sampled.prompts,
                max_new_tokens=sampled.max_new_tokens,
                n=sampled.n,
                temperature=sampled.temperature,
                top_p=sampled.top_p,
            )
        return self._passes(model, cell.metrics, family, inputs)

    def _counting(self, cell: Cell, family: Family, tokenizer: Any) -> CountingModel:
        tokens = int(cell.compute.get("eval_tokens") or 2048)
        chat = chat_of(cell, tokenizer)
        return CountingModel(family.full, tokenizer, batch_tokens=tokens, memory=ScoreMemory(), chat=chat)

    def _passes(
        self, model: CountingModel, entries: Sequence[Mapping[str, Any]], family: Family, inputs: Inputs
    ) -> tuple[ScoringEstimate, list[str]]:
        """What was asked of a model and what these metric entries ask of it; which of them cannot be told."""
        missing = []
        for entry in (e for e in entries if not e["combines"]):
            try:
                examples = inputs.roles[entry["data"]] if entry.get("data") else ()
                list(self._metric(entry).score(model, examples, inputs.cell.seed))
            except Exception as error:
                missing.append(f"the metric {entry['name']} is not in it ({reason_of(error)})")
        return estimate_passes(family, model.forward), missing

    def _metric(self, entry: Mapping[str, Any]) -> Metric[Any]:
        spec = self.catalog.find("metric", entry["use"]).spec
        assert isinstance(spec, MetricSpec)
        metric: Metric[Any] = load_target(spec.load)(spec.config(**entry["with"]))
        return metric

    def _sum(
        self,
        cell: Cell,
        device: torch.device,
        stages: Sequence[StageEstimate],
        scoring: ScoringEstimate,
        missing: Sequence[str],
        start: Sequence[StageEstimate],
        noted: int,
        left: int,
        attacks: Sequence[AttackNeeds],
        process: int,
    ) -> CellEstimate:
        """`start`: stages that this cell runs for all that begin with their result; `noted`: bytes of base values that
        are kept in memory while the cell has other ones; `process`: what a process has in RAM beside tensors."""
        on_cpu = device.type == "cpu"
        beside = process if on_cpu else CUDA_CONTEXT
        in_memory, on_disk = _kept(cell, stages)
        host = max((s.host_bytes for s in stages), default=0) + in_memory
        phases = {"setup": 0, "train": 0, "finish": 0, "score": scoring.peak_bytes or 0}
        for stage in (*start, *stages):
            for name, value in stage.peak_bytes.items():
                value = stage.resident_bytes[name] if on_cpu else value
                more = stage.host_bytes + in_memory if on_cpu and name == "train" else 0
                phases[name] = max(phases[name], value + more)
        phases["attack"] = max((a.resident_bytes if on_cpu else a.peak_bytes for a in attacks), default=0)
        phases = {name: value + beside + noted for name, value in phases.items() if value}
        return CellEstimate(
            id=cell.id,
            folder=cell.folder,
            device=device.type,
            device_bytes=max(phases.values(), default=beside),
            host_bytes=0 if on_cpu else process + host,
            disk_bytes=sum(s.patch_bytes for s in (*start, *stages))
            + (noted if stages else 0)
            + max((s.checkpoint_disk for s in (*start, *stages)), default=0)
            + on_disk,
            left_bytes=left,
            flops={
                "start": sum(s.setup_flops + s.flops for s in start),
                "setup": sum(s.setup_flops for s in stages),
                "train": sum(s.flops for s in stages),
                "score": scoring.flops,
                "attack": sum(a.flops for a in attacks),
            },
            by_phase=phases,
            free_bytes=free_memory(device),
            free_disk=shutil.disk_usage(self.disk).free,
            notes=(*_notes(cell, stages), *missing, *(note for a in attacks for note in a.notes)),
        )


def _patch_bytes(family: Family, cell: Cell, stages: Sequence[StageEstimate]) -> int:
    """Of the patch that a cell leaves: all that differs from the published model."""
    if not cell.stages:
        return 0
    changed = {name for stage in stages for name in stage.changed}
    every = cell.start["from"] == "random"
    sizes = dict(family.full.named_parameters())
    return sum(p.numel() for name, p in sizes.items() if every or name in changed) * family.dtype.itemsize


def _kept(cell: Cell, stages: Sequence[StageEstimate]) -> tuple[int, int]:
    """(bytes in memory, bytes on disk) of what the stages keep of their base models."""
    room = (free_memory(torch.device("cpu")) or 0) * MEMORY_SHARE
    memory = disk = 0
    for stage, options in zip(stages, cell.stages, strict=True):
        place = options["train"].get("keep", "auto")
        if place == "memory" or (place == "auto" and stage.kept_bytes <= room):
            memory = max(memory, stage.kept_bytes)
        else:
            disk += stage.kept_bytes
    return memory, disk


def _notes(cell: Cell, stages: Sequence[StageEstimate]) -> Iterator[str]:
    for index, stage in enumerate(stages):
        name = f"stage {index} ({cell.stages[index]['use']})"
        if stage.basis == "declared":
            yield f"{name} could not be traced and is estimated from its requirements: {stage.note}"
        yield from doubts(stage.doubtful, name)
        if (cell.stages[index]["train"]["diagnostics"] or {}).get("metrics"):
            yield f"{name}: what detectors score of `metrics` while it trains is not in it"


def _existing(path: Path) -> Path:
    """The folder itself or the nearest one above that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
