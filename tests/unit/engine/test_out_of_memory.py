"""A step that runs out of memory: smaller pieces, the same result, and a plain word when nothing helps."""

from __future__ import annotations

import pytest
import torch

from unlearn_suite import Config, Loss, LossObjective, Objective, PrerequisiteError, Requirements
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.specs import Train
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

BLOCK = 2


class Hungry(LossObjective[Config]):
    """Raises above `room` examples, after it has drawn a random number, and left a gradient behind."""

    room = 100
    seen: list[int]

    def requirements(self, shape):
        self.seen = []
        return Requirements(shape.select("mlp_out", [1, 2]), reads=BLOCK)

    def noise(self):
        return torch.rand((), generator=self.ctx.generator)

    def loss(self, batch):
        f, r = batch["forget"], batch["retain"]
        weight = self.noise() if len(f.examples) > 1 else torch.tensor(0.5)
        self.check(f)
        h, r_h = (self.ctx.policy.hidden(b, [BLOCK])[BLOCK] for b in (f, r))
        ref = self.ctx.reference.hidden(r, [BLOCK])[BLOCK]
        parts = {"steer": f.mean((h - 1).square().mean(-1)), "keep": r.mean((r_h - ref).square().mean(-1))}
        return Loss(parts, scalars={"noise": 0.0 * weight})

    def check(self, batch):
        self.seen.append(len(batch.examples))
        if len(batch.examples) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class HungryAtTheEnd(Hungry):
    """Fits in the first micro-batch and fails in a later one, with gradients of the first in place."""

    def check(self, batch):
        self.seen.append(len(batch.examples))
        if (self.ctx.micro_batch or 0) > self.room and len(self.seen) % 2 == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")


class HungryStep(Objective[Config]):
    """Its memory runs out outside of `ctx.backward`, in what it adds to the gradient itself."""

    room = 100

    def __init__(self, config):
        super().__init__(config)
        self.steps = torch.zeros(())
        self.sizes = []

    requirements = Hungry.requirements

    def loss(self, batch):
        h = self.ctx.policy.hidden(batch["forget"], [BLOCK])[BLOCK]
        return Loss({"steer": batch["forget"].mean((h - 1).square().mean(-1))})

    def step(self, batch):
        self.steps += 1
        factor = 1 + float(torch.rand((), generator=self.ctx.generator))
        scalars = self.ctx.backward(self.loss, batch)
        self.sizes.append(self.ctx.micro_batch)
        if (self.ctx.micro_batch or 100) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for parameter in self.ctx.trainable.values():
            parameter.grad *= factor
        return {**scalars, **self.ctx.update()}

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def train(objective, examples, folder, services, **options):
    model = tiny_model()
    states = []
    job = StageJob(
        index=0,
        objective=objective,
        train=Train(steps=3, lr=3e-3, batch=6, length=24, **options),
        required_roles=("forget", "retain"),
        examples=examples,
        seed=1,
        artifacts=folder / "artifacts",
        checkpoints=folder / "checkpoints",
        services=services,
        on_step=lambda step, scalars: states.append(objective.ctx.generator.get_state()),
    )
    result = run_stage(model, tiny_tokenizer(), job)
    return {n: p.detach().clone() for n, p in result.views.trainable.items()}, states


@pytest.mark.parametrize(
    ("kind", "begin", "room", "fits"),
    [(Hungry, None, 3, 3), (Hungry, 5, 2, 2), (HungryAtTheEnd, 4, 2, 2), (HungryStep, None, 2, 2)],
)
def test_the_result_is_that_of_a_run_that_was_cut_from_the_start(kind, begin, room, fits, examples, folder, services):
    hungry, modest = kind(Config()), kind(Config())
    hungry.room = room
    ours, our_states = train(hungry, examples, folder / "hungry", services, micro_batch=begin)
    assert hungry.ctx.micro_batch == fits
    theirs, their_states = train(modest, examples, folder / "modest", services, micro_batch=fits)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor)
    assert all(torch.equal(a, b) for a, b in zip(our_states, their_states, strict=True))
    whole, _ = train(kind(Config()), examples, folder / "whole", services)
    for name, tensor in whole.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=2e-5)


def test_it_is_said_once_and_remembered(examples, folder, services):
    hungry = Hungry(Config())
    hungry.room = 3
    train(hungry, examples, folder, services)
    assert hungry.seen[:1] == [6] and set(hungry.seen[1:]) == {3}
    (said,) = [line for line in services.said if "does not fit into the memory" in line]
    assert "3 instead of 6 examples" in said


def test_the_objectives_own_state_is_not_counted_twice(examples, folder, services):
    hungry = HungryStep(Config())
    hungry.room = 2
    train(hungry, examples, folder, services)
    assert float(hungry.steps) == 3
    assert hungry.sizes == [None, 3, 2, 2, 2]


@pytest.mark.parametrize("kind", [Hungry, HungryStep])
def test_one_example_that_does_not_fit_is_a_plain_error(kind, examples, folder, services):
    hungry = kind(Config())
    hungry.room = 0
    with pytest.raises(PrerequisiteError, match="one example per role does not fit into the memory of cpu") as caught:
        train(hungry, examples, folder, services)
    assert caught.value.code == "memory" and "recompute" in caught.value.hint


def test_a_step_whose_update_has_begun_is_not_taken_again(examples, folder, services):
    class Late(HungryStep):
        def step(self, batch):
            self.ctx.backward(self.loss, batch)
            self.ctx.update()
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(PrerequisiteError, match="the update of the weights does not fit"):
        train(Late(Config()), examples, folder, services)


def test_a_resumed_stage_keeps_the_smaller_micro_batch(examples, folder, services):
    from dataclasses import replace

    hungry = Hungry(Config())
    hungry.room = 3
    stop = {"now": False}
    job = StageJob(
        index=0,
        objective=hungry,
        train=Train(steps=3, lr=3e-3, batch=6, length=24),
        required_roles=("forget", "retain"),
        examples=examples,
        seed=1,
        artifacts=folder / "artifacts",
        checkpoints=folder / "checkpoints",
        services=services,
        on_step=lambda step, scalars: None,
        should_stop=lambda: stop["now"],
    )
    model = tiny_model()
    stop["now"] = True
    assert run_stage(model, tiny_tokenizer(), job).stopped
    stop["now"] = False
    again = Hungry(Config())
    again.room = 3
    result = run_stage(model, tiny_tokenizer(), replace(job, objective=again))
    assert set(again.seen) == {3}
    through, _ = train(Hungry(Config()), examples, folder / "other", services, micro_batch=3)
    for name, tensor in through.items():
        assert torch.equal(result.views.trainable[name], tensor)
