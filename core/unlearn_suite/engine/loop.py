"""One stage: set up, resume, step, save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..models.chat import ChatTemplate
from ..specs import Example, Train
from . import checkpoint
from .accounting import Meter, StageCost
from .batch import Batch, make_roles
from .context import Services, StageContext
from .diagnostics import Metrics
from .distributed import SharedMetrics, SharedServices, guarded, here, peers_watched
from .fitting import Start, until_it_fits
from .held_out import hold_out
from .keeping import keeping
from .lora import Adapters
from .objective import Objective, Requirements, Scalars
from .shape import ModelShape
from .sharded_replay import ShardedReplay
from .shards import ShardedWeights, check_supported, placed_like, whole, whole_tree
from .shelf import Shelf
from .views import ModelViews
from .watch import Watch


@dataclass(frozen=True)
class StageJob:
    """Everything a stage needs beside the model."""

    index: int
    objective: Objective[Any]
    train: Train
    required_roles: Sequence[str]
    examples: Mapping[str, Sequence[Example]]
    seed: int
    artifacts: Path
    checkpoints: Path
    services: Services
    on_step: Callable[[int, Scalars], None]
    should_stop: Callable[[], bool] = lambda: False
    on_resume: Callable[[int], None] = lambda step: None
    guard: Callable[[], AbstractContextManager[Any]] = nullcontext
    """wraps every call into the objective, so that what it raises is reported as its own"""
    shelf: Shelf = field(default_factory=Shelf)
    """where what the stage's base model computes is kept"""
    chat: ChatTemplate | None = None
    """how prompts become turns of the user; none = they are plain text"""
    metrics: Metrics | None = None
    """the problem's metrics, for detectors alone; none = detectors do without"""


@dataclass(frozen=True)
class StageResult:
    """`original`: the model's tensors that the stage changed, as they were. `stopped`: a stop was asked for; the
    model is as before the stage, a checkpoint holds the state, and the same job goes on from it. `cost`: of
    the steps of this process. `collapse`: why the guard ended the stage and which weights it kept, if it did."""

    views: ModelViews
    closing: Scalars
    cost: StageCost
    collapse: Mapping[str, Any] | None = None
    original: dict[str, Tensor] = field(default_factory=dict)
    stopped: bool = False


def run_stage(model: nn.Module, tokenizer: Any, job: StageJob, device: torch.device | None = None) -> StageResult:
    """Train `model` in place (float32 or bf16, `eval()` mode).

    Resumes from the newest whole checkpoint. Raises `TrainingError` on a loss that is not finite. Whatever is
    raised, the model is then as it was before the stage.

    When processes have been joined (`distributed.joined`), all call this with the same model and job, and the
    weights are spread over them, on each process's `device` (None: where the model is), for the length of the
    stage. After an error they stay so: the processes end.
    """
    if here().size > 1:
        with peers_watched():
            return _run_together(model, tokenizer, job, device or next(model.parameters()).device)
    views, adapters, needs = open_views(model, job)
    try:
        result = _run(tokenizer, job, views, next(model.parameters()), needs.reads)
        if adapters and not result.stopped:
            adapters.save(job.artifacts / "adapter")
    except BaseException:
        _undo(views, adapters)
        raise
    if result.stopped:
        _undo(views, adapters)
        return result
    return replace(result, original=adapters.merge() if adapters else views.original)


def _run_together(model: nn.Module, tokenizer: Any, job: StageJob, device: torch.device) -> StageResult:
    """`run_stage` on several processes."""
    check_supported(job.train)
    views, adapters, needs = open_views(model, job, lambda shape: ShardedWeights(model, shape, here(), device))
    assert isinstance(views.replay, ShardedReplay)
    weights, guard = views.replay.weights, job.guard
    services = SharedServices(job.services, weights.processes, weights)
    metrics = SharedMetrics(job.metrics, weights.processes, weights) if job.metrics else None
    job = replace(job, services=services, metrics=metrics, guard=lambda: guarded(guard))
    result = _run(tokenizer, job, views, next(iter(views.trainable.values())), needs.reads)
    (flops,) = weights.processes.total([float(result.cost.flops or 0)])
    result = replace(result, cost=replace(result.cost, flops=int(flops) if result.cost.flops is not None else None))
    original = {name: whole(tensor) for name, tensor in views.original.items()}
    if result.stopped:
        views.restore()
    weights.dissolve()
    if not result.stopped:
        if adapters and weights.processes.lead:
            adapters.save(job.artifacts / "adapter")
        return replace(result, original=adapters.merge() if adapters else original)
    if adapters:
        adapters.remove()
    return result


def open_views(
    model: nn.Module, job: StageJob, spread: Callable[[ModelShape], ShardedWeights] | None = None
) -> tuple[ModelViews, Adapters | None, Requirements]:
    """The two views that the objective asks for, over adapters where the plan wants them, and its requirements.

    `spread` lays the weights (adapters as well) out over several processes.
    """
    model.eval()
    shape = ModelShape.of(model)
    with job.guard():
        needs = job.objective.requirements(shape)
    for name in needs.trainable:
        if name not in shape.tensors:
            raise TrainingError(f"the objective wants to train {name!r}, which the model lacks", code="no-such-tensor")
    adapters = Adapters(model, needs.trainable, job.train.lora, job.seed) if job.train.lora else None
    replay = ShardedReplay(model, spread(shape)) if spread else None
    views = ModelViews(model, shape, adapters.names if adapters else needs.trainable, replay)
    views.replay.checkpoint_blocks = job.train.recompute
    views.replay.compile_blocks = job.train.compile
    return views, adapters, needs


def _undo(views: ModelViews, adapters: Adapters | None) -> None:
    views.restore()
    if adapters:
        adapters.remove()


def _run(tokenizer: Any, job: StageJob, views: ModelViews, like: Tensor, block: int) -> StageResult:
    """Set up, resume, train, finish; `like` tells device and dtype, `block` the deepest block that is read."""
    examples, held_out = hold_out(job.examples, job.train.stop)
    ctx = open_context(tokenizer, replace(job, examples=examples), views, like.device)
    meter = Meter(ctx.device, like.dtype, lambda: views.replay.block_calls - views.kept_calls, lambda: views.kept_flops)
    with meter.phase("setup"):
        with job.guard():
            job.objective.setup(ctx)
        ctx.views.clear()
        watch = Watch(ctx, held_out, block, job.metrics)
        first = _resume(ctx, job, watch)
    ctx.views.keep(keeping(ctx, job.shelf, like))
    with meter.phase("train"):
        finished = _train(ctx, job, first, meter, watch)
    ctx.views.keep(None)
    if not finished:
        return StageResult(views, {}, meter.cost(), stopped=True)
    with meter.phase("finish"):
        with job.guard():
            closing = job.objective.finish()
        ctx.views.clear()
        closing = {**closing, **watch.close()}
    return StageResult(views, closing, meter.cost(), watch.collapse)


def _train(ctx: StageContext, job: StageJob, step: int, meter: Meter, watch: Watch) -> bool:
    """All steps from `step` on, or up to a collapse. False when a stop was asked for before the last one."""
    while step < job.train.steps:
        batch = next_batch(ctx, job, step)
        watch.before(step)
        with meter.step(step, batch) as parts, job.guard():
            scalars = step_that_fits(ctx, job.objective, batch)
        ctx.views.clear()
        scalars = {**scalars, **watch.after(step)}
        step += 1
        job.on_step(step - 1, {**scalars, **parts.scalars()})
        if watch.collapse:
            return True
        stop = ctx.processes.any(job.should_stop())
        if step < job.train.steps and (stop or step % job.train.save_every == 0):
            state = stage_state(ctx, job, step, watch)
            if ctx.processes.lead:
                checkpoint.save(job.checkpoints, job.index, step, state)
        if stop and step < job.train.steps:
            return False
    return True


def step_that_fits(ctx: StageContext, objective: Objective[Any], batch: Mapping[str, Batch]) -> Scalars:
    """One step, in smaller pieces where memory runs out."""
    rows = max(len(b.examples) for b in batch.values())
    return until_it_fits(ctx, rows, Start(ctx, objective), lambda: objective.step(batch))


def next_batch(ctx: StageContext, job: StageJob, step: int) -> dict[str, Batch]:
    """Move to a step; its batch."""
    ctx.step_index = step
    return {role: ctx.draw(role, step) for role in job.required_roles}


def open_context(tokenizer: Any, job: StageJob, views: ModelViews, device: torch.device) -> StageContext:
    """What the objective sees of the stage, before its `setup`."""
    generator = torch.Generator().manual_seed(job.seed * 1_000_003 + job.index)
    pad_id = tokenizer.pad_token_id or 0
    train = job.train
    roles = make_roles(
        tokenizer, job.examples, length=train.length, seed=job.seed, pad_id=pad_id, end=train.end, chat=job.chat
    )
    job.artifacts.mkdir(parents=True, exist_ok=True)
    return StageContext(
        views=views,
        tokenizer=tokenizer,
        train=job.train,
        seed=job.seed,
        generator=generator,
        examples=job.examples,
        roles=roles,
        artifacts=job.artifacts,
        services=job.services,
        device=device,
        processes=here(),
        chat=job.chat,
    )


def stage_state(ctx: StageContext, job: StageJob, step: int, watch: Watch) -> dict[str, Any]:
    """Everything a checkpoint holds, in whole tensors: what one process writes, any number can go on from."""
    with job.guard():
        own = job.objective.state_dict()
    state = {
        "step": step,
        "weights": {name: p.detach().clone() for name, p in ctx.trainable.items()},
        "optimizer": ctx.optimizer.state_dict(),
        "generator": ctx.generator.get_state(),
        "micro_batch": ctx.micro_batch,
        "objective": own,
        "watch": watch.state_dict(),
    }
    return state if ctx.processes.size == 1 else {key: whole_tree(value) for key, value in state.items()}


def _resume(ctx: StageContext, job: StageJob, watch: Watch) -> int:
    state = checkpoint.latest(job.checkpoints, job.index, ctx.device, job.services.warn)
    if state is None:
        job.on_resume(0)
        return 0
    with torch.no_grad():
        for name, weight in state["weights"].items():
            ctx.trainable[name].copy_(placed_like(weight, ctx.trainable[name]))
    ctx.optimizer.load_state_dict(state["optimizer"])
    ctx.generator.set_state(state["generator"])
    ctx.micro_batch = state["micro_batch"]
    with job.guard():
        job.objective.load_state_dict(state["objective"])
    watch.load_state_dict(state["watch"])
    step = int(state["step"])
    job.services.say(f"resuming stage {job.index} at step {step}")
    job.on_resume(step)
    return step
