"""Memory, disk and FLOPs of one stage, from its traces on the two twins."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter

from ...errors import SuiteError
from ...models.chat import ChatTemplate
from ...specs import Example, Train
from ..checkpoint import KEEP
from ..held_out import hold_out
from ..keeping import keeping
from ..loop import StageJob, next_batch, open_context, open_views, stage_state, step_that_fits
from ..needs import needed_parameters
from ..objective import Objective, Requirements
from ..watch import Watch
from .record import Measured, Recorder, Tape, TwinsDiffer, no_collection, play
from .short_attacks import ShortAttacks
from .skim import Kind, Skimmed, skim
from .stand_in import Declared, FoldedTokenizer, Sampled, TwinServices
from .twin import Family
from .work import BlockWork, Work

CPU = torch.device("cpu")


@dataclass(frozen=True)
class StagePlan:
    """A stage as the plan has it. `objective()` makes a new one on every call."""

    objective: Callable[[], Objective[Any]]
    train: Train
    roles: Sequence[str]
    examples: Mapping[str, Sequence[Example]]
    seed: int = 0
    chat: bool = False


@dataclass(frozen=True)
class StageEstimate:
    """Bytes and FLOPs of a stage.

    `peak_bytes` by phase (setup, train, finish) is what torch has allocated, weights included; `resident_bytes` what
    a Linux process keeps in RAM for it when it trains on the CPU (`heap.py`). `flops`: of all steps;
    `setup_flops`: of `setup` and `finish`. `changed`: the tensors that are trained.
    `host_bytes`: what a checkpoint takes in RAM while it is written. `kept_bytes`: of what is kept of the base
    model, in RAM or on disk. `weight_bytes`: of the part of the model that is in memory. `checkpoint_bytes`: of
    one checkpoint; `checkpoint_disk`: of all that lie there at once. `patch_bytes`: of the result.
    `basis`: "traced" (the objective itself ran on the twins) or "declared" (it could not, for the reason in
    `note`: a plain objective with its `Requirements` ran in its place). `sampled`: what it has the model write in
    `setup`. `doubtful`: largest share of a peak that is a guess.
    """

    peak_bytes: Mapping[str, int]
    resident_bytes: Mapping[str, int]
    flops: int
    setup_flops: int
    changed: tuple[str, ...]
    host_bytes: int
    kept_bytes: int
    weight_bytes: int
    checkpoint_bytes: int
    checkpoint_disk: int
    patch_bytes: int
    basis: str
    note: str = ""
    sampled: tuple[Sampled, ...] = ()
    doubtful: float = 0.0


def estimate_stage(family: Family, tokenizer: Any, plan: StagePlan) -> StageEstimate:
    """`tokenizer` None: four characters are taken to be a token.

    Raises `SuiteError` when not even the objective's requirements can be had.
    """
    folded = family.folded(tokenizer)
    with torch.random.fork_rng(devices=[]):
        try:
            return _Traced(family, folded, plan).estimate("traced")
        except Exception as error:
            needs = plan.objective().requirements(family.shape)
            reason = str(error) if isinstance(error, SuiteError | TwinsDiffer) else f"{type(error).__name__}: {error}"
        other = replace(plan, objective=lambda: Declared(needs))
        return _Traced(family, folded, other).estimate("declared", " ".join(reason.split())[:200])


@dataclass(frozen=True)
class _Run:
    """One trace: its tape, the sizes of a checkpoint's tensors, what was sampled, and the blocks' work by phase."""

    tape: Tape
    state: list[int]
    sampled: tuple[Sampled, ...]
    needs: Requirements
    work: dict[str, Work]


class _Traced:
    def __init__(self, family: Family, tokenizer: FoldedTokenizer, plan: StagePlan) -> None:
        self.family = family
        self.tokenizer = tokenizer
        self.plan = plan

    def estimate(self, basis: str, note: str = "") -> StageEstimate:
        with self._job() as (job, _):
            skimmed = skim(self.family.twin(0), self.tokenizer, job)
        kinds = skimmed.kinds
        runs = [self._trace(which, kinds) for which in (0, 1)]
        scale = self.family.scale
        measured = play([run.tape for run in runs], scale)
        state = sum(scale.full(a, b)[0] for a, b in zip(runs[0].state, runs[1].state, strict=True))
        saves = max(self.plan.train.steps - 1, 0) // self.plan.train.save_every
        needs, shape = runs[0].needs, self.family.shape
        # The rest of the model is on disk until something is sampled or scored.
        weights = self.family.weight_bytes(None if runs[0].sampled else needed_parameters(shape, needs))
        train = [_phase(kind) for kind in kinds] + (["checkpoint"] if saves else [])
        phases = {"setup": ["setup"], "train": train, "finish": ["finish"]}

        def peaks(of: Mapping[str, float]) -> dict[str, int]:
            return {name: round(weights + max((of[n] for n in parts), default=0.0)) for name, parts in phases.items()}

        numbers = sum(torch.Size(shape.tensors[name]).numel() for name in needs.trainable)
        return StageEstimate(
            peak_bytes=peaks(measured.peak),
            resident_bytes=peaks(measured.resident),
            flops=round(self._flops(kinds, measured, runs[0].work)),
            setup_flops=round(measured.flops.get("setup", 0.0) + measured.flops.get("finish", 0.0)),
            changed=tuple(needs.trainable),
            host_bytes=round(2 * state) if saves else 0,
            kept_bytes=self._kept_bytes(skimmed),
            weight_bytes=weights,
            checkpoint_bytes=round(state),
            checkpoint_disk=round(state * (min(saves, KEEP) + 1)) if saves else 0,
            patch_bytes=numbers * self.family.dtype.itemsize,
            basis=basis,
            note=note,
            sampled=runs[0].sampled,
            doubtful=measured.doubtful,
        )

    def _flops(self, kinds: Sequence[Kind], measured: Measured, work: Mapping[str, Work]) -> float:
        """Of each kind one step was traced: its other steps cost as much by position."""
        kept = measured.flops.get("kept", 0.0) / max(sum(did.kept for did in work.values()), 1.0)
        total = 0.0
        for kind in kinds:
            name = _phase(kind)
            rate = measured.flops.get(name, 0.0) / max(work[name].forward_passes, 1.0)
            steps = kind.share * self.plan.train.steps
            total += steps * (rate * kind.work.forward_passes + kept * kind.work.kept)
        return total

    def _kept_bytes(self, skimmed: Skimmed) -> int:
        wide = self.family.shape.hidden_size * self.family.dtype.itemsize
        return sum(tokens * (4 if what == "logprobs" else wide) for (_, what), tokens in skimmed.kept.items())

    def _trace(self, which: int, kinds: Sequence[Kind]) -> _Run:
        model = self.family.twin(which)
        recorder = Recorder()
        with self._job() as (job, services), no_collection(), recorder:
            with recorder.phase("open"):
                views, _, needs = open_views(model, job)
                work = BlockWork(views.replay, recorder)
                work.tell_kept(views)
                examples, held_out = hold_out(job.examples, job.train.stop)
                ctx = open_context(self.tokenizer, replace(job, examples=examples), views, CPU)
                ctx.adversary = ShortAttacks(ctx, work)
            with recorder.phase("setup"):
                job.objective.setup(ctx)
                ctx.views.clear()
                watch = Watch(ctx, held_out, needs.reads)
            ctx.views.keep(keeping(ctx, job.shelf, next(model.parameters())))
            done = {}
            gc.collect()
            # The cheapest step comes first, in which the optimizer makes its state, and then again. Around each stands
            # what looks on in the last step, when everything is due: its memory counts, its FLOPs are not the step's.
            last = job.train.steps - 1
            for kind in kinds:
                name = _phase(kind)
                work.reset()
                ctx.generator.manual_seed(kind.largest)  # a draw as long as a width has moved the twins apart
                with recorder.phase(name, again=kind is kinds[0] and last > 0):
                    batch = next_batch(ctx, job, kind.largest)
                    with recorder.flops_apart("watch"):
                        watch.before(last)
                    step_that_fits(ctx, job.objective, batch)
                    ctx.views.clear()
                    done[name] = work.done()
                    with recorder.flops_apart("watch"):
                        watch.after(last)
                del batch
                gc.collect()
            with recorder.phase("checkpoint"):
                state = stage_state(ctx, job, 0, watch)
                sizes = [t.untyped_storage().nbytes() for t in tree_iter(state) if isinstance(t, Tensor)]
                del state
            ctx.views.keep(None)
            with recorder.phase("finish"):
                job.objective.finish()
                ctx.views.clear()
                watch.close()
        return _Run(recorder.tape, sizes, tuple(services.sampled), needs, done)

    @contextmanager
    def _job(self) -> Iterator[tuple[StageJob, TwinServices]]:
        services = TwinServices(self.plan.examples)
        keep = "off" if self.plan.train.keep == "off" else "memory"
        with tempfile.TemporaryDirectory(prefix="unlearn-suite-") as folder:
            yield (
                StageJob(
                    index=0,
                    objective=self.plan.objective(),
                    # On a twin everything that is kept is small, and compiled code would hide its operators.
                    train=self.plan.train.model_copy(update={"keep": keep, "compile": False}),
                    required_roles=self.plan.roles,
                    examples=self.plan.examples,
                    seed=self.plan.seed,
                    artifacts=Path(folder) / "artifacts",
                    checkpoints=Path(folder) / "checkpoints",
                    services=services,
                    on_step=lambda step, scalars: None,
                    chat=ChatTemplate(self.tokenizer) if self.plan.chat else None,
                ),
                services,
            )


def _phase(kind: Kind) -> str:
    return f"step {kind.largest}"
