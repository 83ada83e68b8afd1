"""Stop and resume, damage, and losses that are not finite."""

from __future__ import annotations

import math

import pytest
import torch

from unlearn_suite import Config, Loss, LossObjective, Requirements, TrainingError
from unlearn_suite.engine import checkpoint
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.specs import Train
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer


class Noisy(LossObjective[Config]):
    """Depends on the generator and on a counter of its own: both must survive."""

    bad_at = -1

    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1]), reads=1)

    def setup(self, ctx):
        super().setup(ctx)
        self.direction = torch.randn(ctx.shape.hidden_size, generator=ctx.generator)
        self.count = 0

    def loss(self, batch):
        self.count += 1
        noise = torch.rand((), generator=self.ctx.generator)
        h = self.ctx.policy.hidden(batch["forget"], [1])[1]
        value = batch["forget"].mean((h.float() @ self.direction) * (noise + 0.01 * self.count))
        return Loss({"push": value * (math.nan if self.ctx.step_index == self.bad_at else 1.0)})

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def run(examples, folder, services, *, stop_after=None, dtype=torch.float32, objective=Noisy, steps=9):
    model = tiny_model("qwen3").to(dtype)
    seen: list[int] = []
    job = StageJob(
        index=0,
        objective=objective(Config()),
        train=Train(steps=steps, lr=1e-2, batch=3, length=16, save_every=2),
        required_roles=("forget",),
        examples=examples,
        seed=1,
        artifacts=folder / "a",
        checkpoints=folder / "c",
        services=services,
        on_step=lambda step, scalars: seen.append(step),
        should_stop=lambda: stop_after is not None and len(seen) >= stop_after,
    )
    result = run_stage(model, tiny_tokenizer(), job)
    return dict(model.named_parameters()), seen, result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stop_after", [1, 4, 8])
def test_resume_gives_the_same_bits(stop_after, dtype, examples, tmp_path, services):
    whole, _, _ = run(examples, tmp_path / "whole", services, dtype=dtype)
    _, first, stopped = run(examples, tmp_path / "cut", services, stop_after=stop_after, dtype=dtype)
    assert stopped.stopped and first == list(range(stop_after))
    resumed, second, _ = run(examples, tmp_path / "cut", services, dtype=dtype)
    assert second == list(range(stop_after, 9))
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(damage, examples, tmp_path, services):
    whole, _, _ = run(examples, tmp_path / "whole", services)
    run(examples, tmp_path / "cut", services, stop_after=5)
    damage(sorted((tmp_path / "cut" / "c").glob("*.pt"))[-1])
    resumed, steps, _ = run(examples, tmp_path / "cut", services)
    assert steps[0] == 4
    assert any("damaged: using the one before it" in line for line in services.said)
    assert all(torch.equal(t, resumed[n]) for n, t in whole.items())


def test_without_a_whole_checkpoint_the_stage_begins_anew(examples, tmp_path, services):
    whole, _, _ = run(examples, tmp_path / "whole", services)
    run(examples, tmp_path / "cut", services, stop_after=5)
    for path in (tmp_path / "cut" / "c").glob("*.pt"):
        truncate(path)
    (tmp_path / "cut" / "c" / "stage0.step000006.0123456789abcdef.part").write_bytes(b"half")
    resumed, steps, _ = run(examples, tmp_path / "cut", services)
    assert steps[0] == 0
    assert any("begins anew" in line for line in services.said)
    assert all(torch.equal(t, resumed[n]) for n, t in whole.items())


def test_checkpoints_are_few(examples, tmp_path, services):
    run(examples, tmp_path, services)
    assert len(list((tmp_path / "c").glob("*.pt"))) == checkpoint.KEEP


def test_a_loss_that_is_not_finite_stops_the_stage(examples, tmp_path, services):
    class Bad(Noisy):
        bad_at = 3

    with pytest.raises(TrainingError, match="not finite at step 3"):
        run(examples, tmp_path, services, objective=Bad)


def test_bf16_weights_follow_a_float32_master(examples, tmp_path, services):
    """With lr far below half a unit in the last place, plain bf16 would stand still."""

    class Small(Noisy):
        def loss(self, batch):
            h = self.ctx.policy.hidden(batch["forget"], [1])[1]
            return Loss({"push": batch["forget"].mean(h.float() @ self.direction)})

    model = tiny_model("llama").to(torch.bfloat16)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train = Train(steps=30, lr=2e-5, batch=4, length=16)
    job = StageJob(0, Small(Config()), train, ("forget",), examples, 1, tmp_path, tmp_path, services, lambda *_: None)
    result = run_stage(model, tiny_tokenizer(), job)
    (name,) = result.views.trainable
    changed = (dict(model.named_parameters())[name] != before[name]).float().mean()
    assert changed > 0.2
