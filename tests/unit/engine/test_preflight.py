"""The pre-flight against the truth: what a stage really allocates and computes at full width."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unlearn_suite import Config, Loss, LossObjective, Requirements
from unlearn_suite.engine.accounting import FlopCount
from unlearn_suite.engine.held_out import hold_out
from unlearn_suite.engine.keeping import keeping
from unlearn_suite.engine.loop import StageJob, next_batch, open_context, open_views
from unlearn_suite.engine.needs import needed_parameters
from unlearn_suite.engine.preflight import Family, Recorder, StagePlan, estimate_stage, hollow, play, stage
from unlearn_suite.engine.preflight.heap import Heap
from unlearn_suite.engine.preflight.record import Tape
from unlearn_suite.engine.preflight.scale import Scale, Width
from unlearn_suite.engine.preflight.skim import skim
from unlearn_suite.engine.preflight.stamps import Stamps
from unlearn_suite.engine.watch import Watch
from unlearn_suite.models.outline import on_meta
from unlearn_suite.specs import Diagnostics, Lora, Stop, Train
from unlearn_suite.testing.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer
from unlearn_suite_knowledge.cosine_rmu.config import CosineRmuConfig
from unlearn_suite_knowledge.cosine_rmu.objective import CosineRmu

WIDE = {"hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 6, "num_key_value_heads": 3}
WIDE |= {"head_dim": 16, "vocab_size": 700}
ROLES = ("forget", "retain")


class Ratio(LossObjective[Config]):
    """A log-ratio on every step, and a term on the logits of the other role on every fourth."""

    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1, 2, 3]), reads=-1, logits=True)

    def loss(self, batch):
        f, r = batch["forget"], batch["retain"]
        ratio = self.ctx.policy.token_logprobs(f) - self.ctx.reference.token_logprobs(f)
        parts = {"ratio": f.mean_examples(f.sum_per_example(ratio))}
        if self.ctx.step_index % 4 == 3:
            parts["every-fourth"] = -r.mean(self.ctx.policy.token_logprobs(r))
        return Loss(parts)


class Square(LossObjective[Config]):
    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1, 2]), reads=2)

    def loss(self, batch):
        f = batch["forget"]
        h, ref = (v.hidden(f, [2])[2] for v in (self.ctx.policy, self.ctx.reference))
        return Loss({"square": f.mean((h.float() - ref.float() - 1).square().mean(-1))})


class Watching(LossObjective[Config]):
    """Reads what goes on inside a block, of the base model and of the policy, and makes something in its first step."""

    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1, 2]), reads=2)

    def seen(self, view, batch):
        found = []
        inside = self.ctx.views.replay.blocks[2].mlp.down_proj
        hook = inside.register_forward_hook(lambda module, given, out: found.append(out))
        view.hidden(replace(batch), [2])
        hook.remove()
        return found[0]

    def loss(self, batch):
        if self.ctx.step_index == 0:
            self.first = self.seen(self.ctx.reference, batch["forget"]).float().mean()
        now, before = (self.seen(view, batch["forget"]) for view in (self.ctx.policy, self.ctx.reference))
        return Loss({"seen": batch["forget"].mean((now.float() - before.float() - 1).square().mean(-1))})


class Attacked(LossObjective[Config]):
    """Adds the gradient of an attack of forty steps."""

    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1, 2, 3]), reads=-1, logits=True)

    def step(self, batch):
        nll = -self.ctx.policy.token_logprobs(batch["retain"]).mean()
        nll.backward()
        self.ctx.policy.clear()
        found = self.ctx.adversary.attack(
            lambda k: -self.ctx.policy.token_logprobs(self.ctx.draw("forget", k)).mean(),
            lambda: self.ctx.policy.token_logprobs(batch["forget"]).mean(),
            lr=1e-3,
            readouts=dict.fromkeys(range(4, 41, 4), 1.0),
            optimizer="adamw",
        )
        assert len(found.outer_losses) == 10 and len(found.inner_losses) == 40
        for name, parameter in self.ctx.trainable.items():
            parameter.grad += found.gradient[name].to(parameter.dtype)
        return self.ctx.update()


class Stubborn(Square):
    """Looks at the width of the model."""

    def setup(self, ctx):
        super().setup(ctx)
        assert ctx.shape.hidden_size == 96, "only the real model will do"


def family(dtype: torch.dtype = torch.float32, arch: str = "llama", **overrides: int) -> Family:
    return Family(on_meta(tiny_model(arch, **overrides).config), dtype)


def truth(objective, train, examples, folder, services, steps, dtype=torch.float32):
    """(most bytes in use beside the weights, FLOPs) of the given steps at full width."""
    model = tiny_model("llama", **WIDE).to(dtype)
    job = StageJob(
        index=0,
        objective=objective,
        train=train,
        required_roles=ROLES,
        examples=examples,
        seed=0,
        artifacts=folder / "artifacts",
        checkpoints=folder / "checkpoints",
        services=services,
        on_step=lambda step, scalars: None,
    )
    recorder, count = Recorder(), FlopCount()
    with recorder:
        with recorder.phase("setup"):
            views, _, needs = open_views(model, job)
            seen, held_out = hold_out(examples, train.stop)
            ctx = open_context(tiny_tokenizer(), replace(job, examples=seen), views, torch.device("cpu"))
            objective.setup(ctx)
            ctx.views.clear()
            watch = Watch(ctx, held_out, needs.reads)
        ctx.views.keep(keeping(ctx, job.shelf, next(model.parameters())))
        with recorder.phase("train"):
            for step in steps:
                watch.before(step)
                with count:
                    objective.step(next_batch(ctx, job, step))
                ctx.views.clear()
                watch.after(step)
    found = play([recorder.tape, recorder.tape], Scale([]))  # equal tapes: every number stands for itself
    return found.peak["train"], count.flops


CASES = {
    "hidden": (lambda: Square(Config()), {}),
    "bf16": (lambda: Square(Config()), {}),
    "logits": (lambda: Ratio(Config()), {}),
    "kept": (lambda: Ratio(Config()), {"keep": "memory"}),
    "micro-batches": (lambda: Ratio(Config()), {"micro_batch": 2}),
    "recompute": (lambda: Ratio(Config()), {"recompute": True}),
    "lora": (lambda: Square(Config()), {"lora": Lora(rank=4)}),
    "guard": (lambda: Square(Config()), {"stop": Stop(ppl_rise=9.0, every=2, examples=4)}),
    "detectors": (lambda: Square(Config()), {"diagnostics": Diagnostics(every=4)}),
    "attack": (lambda: CosineRmu(CosineRmuConfig(block=2, meta_start=0, inner_steps=2)), {}),
    "long attack": (lambda: Attacked(Config()), {}),
    "hooks": (lambda: Watching(Config()), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_memory_and_flops_are_those_of_the_stage_itself(case, examples, folder, services):
    make, options = CASES[case]
    dtype = torch.bfloat16 if case == "bf16" else torch.float32
    train = Train(steps=4, batch=4, length=24, save_every=100, **{"keep": "off", **options})
    if options.get("lora"):
        pytest.importorskip("peft")
    said = estimate_stage(family(dtype, **WIDE), tiny_tokenizer(), StagePlan(make, train, ROLES, examples))
    assert said.basis == "traced" and said.doubtful == 0
    peak, flops = truth(make(), train, examples, folder, services, range(4), dtype)
    full = family(dtype, **WIDE)
    weights = full.weight_bytes(needed_parameters(full.shape, make().requirements(full.shape)))
    assert said.flops == pytest.approx(flops, rel=0.1)  # steps of a kind count by their positions
    assert said.peak_bytes["train"] - weights == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("keep", ["off", "memory"])
def test_flops_of_rare_work_without_autograd_count_as_often_as_it_comes(keep, examples, folder, services):
    def make():
        return CosineRmu(CosineRmuConfig(block=2, inner_steps=2, meta_start=0.2))

    train = Train(steps=12, batch=2, length=16, keep=keep)
    said = estimate_stage(family(**WIDE), tiny_tokenizer(), StagePlan(make, train, ROLES, examples))
    _, flops = truth(make(), train, examples, folder, services, range(12))
    assert said.flops == pytest.approx(flops, rel=0.03)


def test_what_blocks_do_without_autograd_is_noted_as_if_it_were_computed(examples, folder, services, monkeypatch):
    def tapes():
        recorded = []
        monkeypatch.setattr(stage, "play", lambda found, scale: recorded.extend(found) or play(found, scale))
        train = Train(steps=2, batch=2, length=16)
        estimate_stage(family(**WIDE), tiny_tokenizer(), StagePlan(lambda: Ratio(Config()), train, ROLES, examples))
        return recorded

    blank = tapes()
    monkeypatch.setattr(Stamps, "run", lambda self, kind, block, h, args, kwargs: block(h, *args, **kwargs))
    assert blank == tapes()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_tensor_of_every_architecture_is_known_at_full_width(arch):
    found = family(arch=arch)
    twins = [dict(found.twin(which).named_parameters()) for which in (0, 1)]
    for name, shape in found.shape.tensors.items():
        a, b = (twin[name].numel() for twin in twins)
        assert found.scale.full(a, b) == (torch.Size(shape).numel(), True), name


def test_a_number_is_split_into_widths():
    scale = Scale([Width("a", 2, 3, 30), Width("b", 5, 7, 64, unit=2)])
    assert scale.full(2 * 4, 3 * 4) == (120.0, True)
    assert scale.full(8 * 100 * 2, 8 * 196 * 3) == (8.0 * 64 * 64 * 30, True)
    assert scale.full(17, 17) == (17.0, True)
    assert scale.full(5 * 2, 7 * 2)[0] == 64, "half of a head counts as half"
    assert not scale.full(2 + 10, 3 + 14)[1], "a sum of widths is a guess"
    with pytest.raises(ValueError, match="share a prime"):
        Scale([Width("a", 2, 3, 1), Width("b", 3, 5, 1)])


@pytest.fixture
def skimmed(examples, folder, services):
    def of(objective, train):
        job = StageJob(
            index=0,
            objective=objective,
            train=train,
            required_roles=ROLES,
            examples=examples,
            seed=0,
            artifacts=folder,
            checkpoints=folder,
            services=services,
            on_step=lambda step, scalars: None,
        )
        found = family()
        return skim(found.twin(0), found.folded(tiny_tokenizer()), job)

    return of


def test_kinds_of_steps_are_told_apart(skimmed):
    kinds = skimmed(Ratio(Config()), Train(steps=12, batch=2, length=16)).kinds
    assert [k.share for k in kinds] == [0.75, 0.25]
    assert kinds[1].largest % 4 == 3


@pytest.mark.parametrize("options", [{}, {"recompute": True}, {"micro_batch": 1}, {"lora": Lora(rank=4)}])
def test_all_hollow_blocks_at_once_are_counted_as_one_by_one(options, skimmed, monkeypatch):
    train = Train(steps=8, batch=2, length=16, **options)
    makes = [lambda: Ratio(Config()), lambda: Attacked(Config())]
    if not {"lora", "recompute"} & options.keys():
        makes.append(lambda: Watching(Config()))
    if "lora" in options:
        pytest.importorskip("peft")
    at_once = [skimmed(make(), train) for make in makes]
    monkeypatch.setattr(hollow, "_take_at_once", lambda *_: None)
    assert at_once == [skimmed(make(), train) for make in makes]


def test_what_comes_again_is_played_twice_but_for_what_it_leaves():
    tape = Tape(moves=[1, 2, 3, -2, -3, 4], phases=[(0, "setup"), (1, "step"), (5, "")], again=[(1, 5)])
    assert list(tape.played()) == [
        *[("setup", 0), ("setup", 1)],
        *[("step", 0), ("step", 2), ("step", 3), ("step", -2), ("step", -3)],
        *[("step", 2), ("step", 3), ("step", -2), ("step", -3)],
        *[("", 0), ("", 4)],
    ]
    tape = Tape(moves=[1, 2, -1], phases=[(0, "step"), (3, "")], again=[(0, 3)])
    assert [move for _, move in tape.played() if move] == [1, 2, -1, 1, -1], "2 is there from the first time"


def test_an_objective_that_cannot_run_on_a_twin_is_estimated_from_its_requirements(examples):
    train = Train(steps=2, batch=4, length=16)
    plan = StagePlan(lambda: Stubborn(Config()), train, ROLES, examples)
    said = estimate_stage(family(**WIDE), tiny_tokenizer(), plan)
    assert said.basis == "declared" and "only the real model will do" in said.note
    traced = estimate_stage(
        family(**WIDE), tiny_tokenizer(), StagePlan(lambda: Square(Config()), train, ROLES, examples)
    )
    assert said.peak_bytes["train"] == pytest.approx(traced.peak_bytes["train"], rel=0.35)


def test_checkpoints_and_patch(examples, folder, services):
    train = Train(steps=5, batch=2, length=16, save_every=2)
    found = family(torch.bfloat16, **WIDE)
    said = estimate_stage(found, tiny_tokenizer(), StagePlan(lambda: Square(Config()), train, ROLES, examples))
    numbers = 2 * 96 * 160
    assert said.patch_bytes == 2 * numbers
    # weights in bf16, their masters and two moments in fp32
    assert said.checkpoint_bytes == pytest.approx(numbers * (2 + 4 + 8), rel=0.1)
    assert said.checkpoint_disk == 3 * said.checkpoint_bytes
    none = Train(steps=0, batch=2, length=16)
    said = estimate_stage(found, tiny_tokenizer(), StagePlan(lambda: Square(Config()), none, ROLES, examples))
    assert said.checkpoint_disk == said.host_bytes == 0


def test_the_heap_keeps_holes_and_gives_pages_back():
    heap = Heap()
    heap.take(0, 2**20)
    assert heap.resident == 2**20, "larger than the threshold: pages of its own"
    heap.give(0)
    assert heap.resident == 0
    for key in (1, 2, 3):
        heap.take(key, 2**18)  # below the threshold, which is 1 MB now
    before = heap.resident
    heap.give(2)
    assert heap.resident == before, "a hole stays resident"
    heap.take(4, 2**17)
    assert heap.resident == before, "and is used"
    heap.take(5, 2**18)
    assert heap.resident > before
    for key in (1, 3, 4):
        heap.give(key)
    heap.take(6, 2**19)
    assert heap.resident < before + 2**19, "neighbouring holes are one"
