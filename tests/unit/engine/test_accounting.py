"""Costs: FLOPs equal formulas written by hand, padding is no token, and measuring changes no bit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from unlearn_suite import Config, Loss, LossObjective, Requirements
from unlearn_suite.engine import accounting, chunks
from unlearn_suite.engine.accounting import Meter, PeakMemory
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.specs import Example, Train
from unlearn_suite.testing.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

CPU = torch.device("cpu")
D, FF, KV, HEADS = 32, 48, 16, 4  # of the tiny Llama


class Steer(LossObjective[Config]):
    """Moves the forget activations of block 2 and keeps the retain ones; trains one matrix in blocks 1 and 2."""

    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1, 2]), reads=2)

    def loss(self, batch):
        forget, retain = batch["forget"], batch["retain"]
        h = self.ctx.policy.hidden(forget, [2])[2]
        r, r0 = (view.hidden(retain, [2])[2] for view in (self.ctx.policy, self.ctx.reference))
        parts = {"forget": forget.mean((h - 1).square().mean(-1)), "retain": retain.mean((r - r0).square().mean(-1))}
        return Loss(parts)


class Sometimes(Steer):
    """Every fifth step runs more blocks."""

    def loss(self, batch):
        if self.ctx.step_index % 5 == 4:
            self.ctx.policy.logits(batch["forget"])
        return super().loss(batch)


class Late(Steer):
    """From step 40 on more blocks run."""

    def loss(self, batch):
        if self.ctx.step_index >= 40:
            self.ctx.policy.logits(batch["forget"])
        return super().loss(batch)


def run(folder, services, examples, objective=Steer, *, steps=6, arch="llama", keep="off", **job):
    model = tiny_model(arch)
    losses: list[float] = []
    stage = StageJob(
        index=0,
        objective=objective(Config()),
        train=Train(steps=steps, lr=1e-2, batch=2, length=16, save_every=2, keep=keep),
        required_roles=("forget", "retain"),
        examples=examples,
        seed=3,
        artifacts=folder / "a",
        checkpoints=folder / "c",
        services=services,
        on_step=lambda step, scalars: losses.append(scalars["loss"]),
        **job,
    )
    result = run_stage(model, tiny_tokenizer(), stage)
    return result.cost, losses, dict(model.named_parameters())


def texts(lengths):
    """One token per character."""
    return [Example(str(i), "abcdefghijklmnop"[:n]) for i, n in enumerate(lengths)]


def block_flops(rows, tokens, attention=True):
    """One block's forward on `rows` x `tokens`: projections q, k, v, o and gate, up, down, and attention."""
    matrices = 2 * D * D + 2 * D * KV + 3 * D * FF
    return 2 * rows * tokens * matrices + (4 * rows * tokens * tokens * D if attention else 0)


def test_flops_of_a_stack_of_linear_maps(make_batch):
    n, a, b, c = 6, 5, 7, 3
    model = nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c))
    meter = Meter(CPU, torch.float32, lambda: 0)
    for index in range(4):
        with meter.step(index, {"forget": make_batch([3, 3], seed=index)}):
            model(torch.ones(n, a)).sum().backward()
    forward = 2 * n * (a * b + b * c)
    backward = 2 * n * (a * b + 2 * b * c)  # the input needs no gradient
    cost = meter.cost()
    assert cost.flops == 4 * (forward + backward)
    assert (cost.steps, cost.counted_steps) == (4, 1)


def test_flops_of_a_stage_are_those_of_its_equations(tmp_path, services):
    rows, tokens, steps = 2, 12, 5
    cost, _, _ = run(tmp_path, services, {"forget": texts([12] * 6), "retain": texts([12] * 6)}, steps=steps)
    forward = 2 * block_flops(rows, tokens)  # block 0, once per batch
    forward += 3 * 2 * block_flops(rows, tokens)  # blocks 1 and 2: forget, retain, and retain for the reference
    down = 2 * rows * tokens * D * FF
    through = block_flops(rows, tokens, attention=False) + 10 * rows * tokens * tokens * D  # block 2's input gradient
    backward = 2 * (2 * down + through)
    assert cost.flops == steps * (forward + backward)


def test_padding_is_no_token_but_costs_flops(tmp_path, services):
    even, _, _ = run(tmp_path / "even", services, {"forget": texts([12] * 2), "retain": texts([12] * 2)}, steps=3)
    torn, _, _ = run(tmp_path / "torn", services, {"forget": texts([12, 5]), "retain": texts([12, 3])}, steps=3)
    assert even.tokens == 3 * (12 * 4)
    assert torn.tokens == 3 * (12 + 5 + 12 + 3)
    assert torn.flops == even.flops
    assert torn.tokens_per_second == pytest.approx(torn.tokens / torn.step_seconds)


def test_a_rare_kind_of_step_is_found_and_counted(tmp_path, services, monkeypatch):
    examples = {"forget": texts([12] * 4), "retain": texts([12] * 4)}
    sampled, _, _ = run(tmp_path / "sampled", services, examples, Sometimes, steps=20)
    monkeypatch.setattr(Meter, "_is_due", lambda self: True)
    counted, _, _ = run(tmp_path / "all", services, examples, Sometimes, steps=20)
    plain, _, _ = run(tmp_path / "plain", services, examples, steps=20)
    assert counted.counted_steps == 20 and sampled.counted_steps < 12
    assert sampled.flops == counted.flops > plain.flops


def test_what_is_kept_makes_no_kinds_of_steps(tmp_path, services, monkeypatch):
    monkeypatch.setattr(chunks, "POSITIONS", 40)  # three texts: steps of the first epoch differ in what is not kept yet
    letters = "abcdefghijklmnopqrstuvwxyz"
    examples = {r: [Example(f"{r}{i}", letters[i : i + 12]) for i in range(14)] for r in ("forget", "retain")}
    sampled, _, _ = run(tmp_path / "sampled", services, examples, Late, steps=48, keep="memory")
    monkeypatch.setattr(Meter, "_is_due", lambda self: True)
    counted, _, _ = run(tmp_path / "all", services, examples, Late, steps=48, keep="memory")
    assert sampled.flops == counted.flops and sampled.counted_steps < 12


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_counting_changes_no_bit(arch, tmp_path, services, examples, monkeypatch):
    found = {}
    for name, due in (("never", False), ("always", True)):
        monkeypatch.setattr(Meter, "_is_due", lambda self, due=due: due)
        found[name] = run(tmp_path / name, services, examples, Sometimes, arch=arch)
    (off, losses, weights), (on, counted_losses, counted_weights) = found["never"], found["always"]
    assert off.flops is None and on.counted_steps == 6
    assert losses == counted_losses
    assert all(torch.equal(tensor, counted_weights[name]) for name, tensor in weights.items())


def test_a_resumed_stage_tells_of_its_own_steps(tmp_path, services, examples):
    calls = iter(range(100))
    first, _, _ = run(tmp_path, services, examples, should_stop=lambda: next(calls) >= 1)
    second, _, _ = run(tmp_path, services, examples)
    assert (first.first_step, first.steps) == (0, 2)
    assert (second.first_step, second.steps) == (2, 4)
    assert set(first.seconds) == {"setup", "train"} and set(second.seconds) == {"setup", "train", "finish"}
    assert second.to_json()["tokens_per_second"] > 0


def test_a_step_that_raises_is_not_counted(make_batch):
    meter = Meter(CPU, torch.float32, lambda: 0)
    with pytest.raises(ZeroDivisionError), meter.step(0, {"forget": make_batch([3], seed=0)}):
        raise ZeroDivisionError
    assert (meter.cost().steps, meter.cost().flops, meter.cost().tokens_per_second) == (0, None, None)


@pytest.mark.skipif(PeakMemory(CPU).kind != "resident", reason="the system cannot reset the high-water mark")
def test_a_process_does_not_inherit_the_memory_of_the_one_that_started_it():
    code = "import unlearn_suite.engine.accounting as a, torch; print(a.PeakMemory(torch.device('cpu')).peak())"
    held = torch.ones(400 * 2**20 // 4) + 1
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(alone.stdout) < PeakMemory(CPU).peak() - held.nbytes // 4


@pytest.mark.skipif(PeakMemory(CPU).kind != "resident", reason="the system cannot reset the high-water mark")
def test_each_phase_has_its_own_peak():
    meter = Meter(CPU, torch.float32, lambda: 0)
    size = 256 * 2**20
    for name, megabytes in (("setup", 0), ("train", 256), ("finish", 0)):
        with meter.phase(name):
            held = torch.ones(megabytes * 2**18)
            del held
    peak = meter.cost().peak_bytes
    assert peak["train"] - peak["setup"] > 0.9 * size
    assert peak["train"] - peak["finish"] > 0.9 * size


def test_utilisation_only_where_the_peak_is_known(monkeypatch):
    cuda = torch.device("cuda")
    names = {"NVIDIA L40S": 362e12, "NVIDIA L4": 121e12, "NVIDIA A100-SXM4-80GB": 312e12, "A card of 2040": None}
    for name, peak in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=None, name=name: name)
        assert accounting._peak_flops(cuda, torch.bfloat16) == peak
    assert accounting._peak_flops(cuda, torch.float32) is None
    assert Meter(CPU, torch.bfloat16, lambda: 0).cost().utilisation is None


def test_an_attack_tells_its_share_of_the_step(examples, tmp_path, services):
    """Two inner steps and a read-out of the step's own equation: three passes of four, and the shared prefix."""

    class Attacked(Steer):
        def step(self, batch):
            def loss(_: int = 0) -> torch.Tensor:
                return self.loss(batch).total()

            self.ctx.adversary.attack(loss, loss, lr=1e-3, readouts={2: 1.0})
            return super().step(batch)

    rows: list[dict[str, float]] = []
    job = StageJob(
        index=0,
        objective=Attacked(Config()),
        train=Train(steps=2, batch=2, length=16),
        required_roles=("forget", "retain"),
        examples=examples,
        seed=3,
        artifacts=tmp_path,
        checkpoints=tmp_path,
        services=services,
        on_step=lambda step, scalars: rows.append(scalars),
    )
    cost = run_stage(tiny_model("llama"), tiny_tokenizer(), job).cost
    assert [row["attack_steps"] for row in rows] == [2.0, 2.0]
    assert all(0 < row["attack_seconds"] < cost.seconds["train"] for row in rows)
    assert 0.75 <= rows[0]["attack_flops_share"] < 0.8
    assert "attack_flops_share" not in rows[1]  # only the first step of a kind is counted
