"""Kept activations: the numbers of a run without, the same bits from memory, disk, and after a stop; damage is seen."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager

import pytest
import torch
from torch.nn.functional import softplus

from unlearn_suite import Config, Loss, LossObjective, PrerequisiteError, Requirements, losses
from unlearn_suite.engine import chunks, kept
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.engine.shelf import Shelf
from unlearn_suite.specs import Example, Train
from unlearn_suite.testing.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

STEPS = 9  # of 3 examples: the 8 of a role come three times and a part


class Everything(LossObjective[Config]):
    """Reads prefix, reference activations, reference log-probs and the reference's distribution."""

    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1, 2]), reads=3, logits=True)

    def loss(self, batch):
        f, r, policy, reference = batch["forget"], batch["retain"], self.ctx.policy, self.ctx.reference
        h, ref = (v.hidden(r, [0, 2])[2] for v in (policy, reference))
        ratio = policy.token_logprobs(f) - reference.token_logprobs(f)
        return Loss(
            {
                "steer": f.mean((policy.hidden(f, [2])[2] - 1.0).square().mean(-1)),
                "keep": r.mean(losses.relative_error(h, ref)),
                "ratio": f.mean_examples(softplus(f.sum_per_example(ratio))),
                "kl": r.mean(reference.per_token(r, lambda p, _, q: losses.kl(p, q), against=policy)),
            }
        )


class Unguarded(LossObjective[Config]):
    """Divides by the norm of reference activations without an epsilon, as an author may."""

    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1]), reads=1)

    def loss(self, batch):
        f = batch["forget"]
        h, ref = (v.hidden(f, [1])[1] for v in (self.ctx.policy, self.ctx.reference))
        return Loss({"along": f.mean((h * (ref / ref.norm(dim=-1, keepdim=True))).sum(-1))})


def run(
    examples, folder, services, keep, *, arch="llama", objective=Everything, stop_after=None, shelf=None, **options
):
    dtype = options.pop("dtype", torch.float32)
    model = tiny_model(arch).to(dtype)
    seen: list[float] = []
    job = StageJob(
        index=0,
        objective=objective(Config()),
        train=Train(**{"steps": STEPS, "lr": 3e-3, "batch": 3, "length": 24, "save_every": 2, "keep": keep, **options}),
        required_roles=("forget", "retain"),
        examples=examples,
        seed=4,
        artifacts=folder / "artifacts",
        checkpoints=folder / "checkpoints",
        services=services,
        on_step=lambda step, scalars: seen.append(scalars["loss"]),
        should_stop=lambda: stop_after is not None and len(seen) >= stop_after,
        shelf=shelf or Shelf(folder=folder / "kept"),
    )
    result = run_stage(model, tiny_tokenizer(), job)
    return seen, {n: p.detach() for n, p in model.named_parameters()}, result


def assert_same_bits(one, other):
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_losses_and_weights_equal_those_without(arch, examples, tmp_path, services):
    plain, weights, without = run(examples, tmp_path / "off", services, "off", arch=arch)
    ours, kept_weights, with_it = run(examples, tmp_path / "on", services, "auto", arch=arch)
    assert ours == pytest.approx(plain, rel=1e-5)
    assert with_it.cost.flops < 0.9 * without.cost.flops
    for name, tensor in weights.items():
        torch.testing.assert_close(kept_weights[name], tensor, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_and_disk_and_a_resumed_run_give_the_same_bits(dtype, examples, tmp_path, services):
    losses_, weights, _ = run(examples, tmp_path / "memory", services, "memory", dtype=dtype)
    on_disk, from_disk, _ = run(examples, tmp_path / "disk", services, "disk", dtype=dtype)
    assert losses_ == on_disk
    assert_same_bits(weights, from_disk)
    assert list((tmp_path / "disk" / "kept").glob("*.safetensors")) and not (tmp_path / "memory" / "kept").exists()
    for place, stop_after in (("memory", 1), ("memory", 4), ("disk", 4)):
        folder = tmp_path / f"cut-{place}-{stop_after}"
        assert run(examples, folder, services, place, stop_after=stop_after, dtype=dtype)[2].stopped
        rest, resumed, _ = run(examples, folder, services, place, dtype=dtype)
        assert rest == losses_[stop_after:]
        assert_same_bits(weights, resumed)


def test_no_lock_is_held_while_another_is_taken(examples, tmp_path, services):
    """Names share locks, and two processes wait for one another's."""
    held: list[str] = []

    @contextmanager
    def lock(name):
        assert not held, f"{name} is asked for under the lock of {held}"
        held.append(name)
        yield
        held.remove(name)

    shelf = Shelf(folder=tmp_path / "kept", lock=lock)
    ours, *_ = run(examples, tmp_path / "one", services, "disk", shelf=shelf)
    assert ours == run(examples, tmp_path / "two", services, "memory")[0]


def test_a_second_stage_reads_what_the_first_left(examples, tmp_path, services):
    shelf = Shelf()
    first, weights, one = run(examples, tmp_path / "one", services, "auto", shelf=shelf)
    assert shelf.memory
    second, again, two = run(examples, tmp_path / "two", services, "auto", shelf=shelf)
    assert first == second and two.cost.flops < one.cost.flops
    assert_same_bits(weights, again)
    other = {role: [Example(e.id, e.text + " too") for e in items] for role, items in examples.items()}
    before = set(shelf.memory)
    run(other, tmp_path / "three", services, "auto", shelf=shelf)
    assert not before & set(shelf.memory), "what belongs to other examples must go"


def test_what_is_in_memory_already_needs_no_more_room(examples, tmp_path, services, monkeypatch):
    shelf = Shelf()
    run(examples, tmp_path / "one", services, "memory", shelf=shelf)
    used = sum(t.numel() * t.element_size() for t in shelf.memory.values())
    monkeypatch.setattr(kept, "free_memory", lambda device: used // 2)
    run(examples, tmp_path / "two", services, "memory", shelf=shelf)
    with pytest.raises(PrerequisiteError, match="memory are free"):
        run(examples, tmp_path / "three", services, "memory")


def test_a_damaged_file_is_noticed_and_made_again(examples, tmp_path, services):
    losses_, weights, _ = run(examples, tmp_path, services, "disk")
    flipped, cut = sorted((tmp_path / "kept").glob("*.safetensors"))[:2]
    data = bytearray(flipped.read_bytes())
    data[-3] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-40])
    again, same, _ = run(examples, tmp_path / "again", services, "disk", shelf=Shelf(folder=tmp_path / "kept"))
    assert sum("damaged" in line for line in services.said) == 2
    assert again == losses_
    assert_same_bits(weights, same)


def test_values_do_not_depend_on_what_was_asked_before(examples, make_batch):
    """Block 2 from the embeddings, from block 0's kept output, or through other batches: the same bits."""
    roles, views, model = surroundings(examples, "gemma3")
    batch = roles["forget"].batch(0, 5)

    def fresh():
        return keep(roles, views, model)

    direct = fresh().get(batch, 2)
    stepwise = fresh()
    for size in (1, 3):
        stepwise.get(roles["forget"].batch(7, size), 0)
    stepwise.get(batch, 0)
    calls = views.replay.block_calls
    assert torch.equal(stepwise.get(batch, 2), direct)
    assert views.replay.block_calls - calls == 2, "blocks 1 and 2 only, of the one chunk"
    last = stepwise.get(batch, "last")
    logprobs = stepwise.get(batch, "logprobs")
    assert torch.equal(fresh().get(batch, "last"), last) and torch.equal(fresh().get(batch, "logprobs"), logprobs)
    expected = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1].double()
    chosen = expected.log_softmax(-1).gather(2, batch.input_ids[:, 1:, None])[..., 0]
    mask = batch.mask("content")
    torch.testing.assert_close(logprobs[mask].double(), chosen[mask[:, 1:]], rtol=1e-5, atol=1e-5)
    assert not logprobs[~mask].any()


def surroundings(examples, arch="llama"):
    from unlearn_suite.engine.batch import make_roles
    from unlearn_suite.engine.shape import ModelShape
    from unlearn_suite.engine.views import ModelViews

    model = tiny_model(arch)
    shape = ModelShape.of(model)
    roles = make_roles(tiny_tokenizer(), examples, length=24, seed=0, pad_id=0)
    return roles, ModelViews(model, shape, shape.select("mlp_out", [1, 2])), model


def keep(roles, views, model, shelf=None, place="auto", say=lambda text: None):
    like = next(model.parameters())
    shelf = shelf or Shelf()
    return kept.Kept(roles.values(), views.base_value, shelf, place, width=32, like=like, say=say, warn=say)


def test_only_batches_of_the_roles_as_they_are(examples, make_batch):
    roles, views, model = surroundings(examples)
    held = keep(roles, views, model)
    batch = roles["forget"].batch(0, 4)
    assert held.get(batch, 0) is not None and held.get(batch.split(3)[1], 0) is not None
    assert held.get(make_batch([5, 7], seed=0), 0) is None
    changed = dataclasses.replace(batch, input_ids=batch.input_ids.flip(1))
    assert held.get(changed, 0) is None, "a batch whose tokens were exchanged must not be taken for the old one"


def test_the_size_is_said_first_and_what_fits_nowhere_is_an_error(examples, tmp_path, monkeypatch):
    roles, views, model = surroundings(examples)
    said: list[str] = []
    tokens = sum(len(e.input_ids) for e in roles["forget"].encoded)
    batch = roles["forget"].batch(0, 2)
    keep(roles, views, model, say=said.append).get(batch, 2)
    size = f"{tokens * 32 * 4 / 1e6:.1f} MB"
    assert said == [f"keeping block 2's output of the base model for 'forget': {size}, in memory"]
    monkeypatch.setattr(kept, "free_memory", lambda device: 5000)
    keep(roles, views, model, Shelf(folder=tmp_path), say=said.append).get(batch, 2)
    assert said[-1].endswith("in files")
    with pytest.raises(PrerequisiteError, match="of memory are free"):
        keep(roles, views, model, place="memory").get(batch, 2)
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(PrerequisiteError, match="of disk are free"):
        keep(roles, views, model, Shelf(folder=tmp_path / "full"), place="disk").get(batch, 2)
    with pytest.raises(PrerequisiteError, match="no folder"):
        keep(roles, views, model, place="disk").get(batch, 2)


def test_chunks_are_a_function_of_the_set_of_examples(examples, monkeypatch):
    monkeypatch.setattr(chunks, "POSITIONS", 50)
    encoded = surroundings(examples)[0]["forget"].encoded
    cut = chunks.cut(encoded)
    assert [c.name for c in cut] == [c.name for c in chunks.cut([*reversed(encoded), encoded[0]])]
    assert len(cut) > 2 and sum(len(c.encoded) for c in cut) == len(encoded)
    assert all(len(c.encoded) * max(len(e.input_ids) for e in c.encoded) <= 50 for c in cut)


def test_padding_of_kept_values_is_harmless(examples, tmp_path, services):
    losses_, weights, _ = run(examples, tmp_path, services, "auto", objective=Unguarded)
    plain, _, _ = run(examples, tmp_path / "off", services, "off", objective=Unguarded)
    assert losses_ == pytest.approx(plain, rel=1e-5)
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.parametrize("keep_what", ["off", "auto"])
def test_data_that_does_not_come_again_is_not_kept(keep_what, examples, tmp_path, services):
    shelf = Shelf()
    run(examples, tmp_path, services, keep_what, shelf=shelf, steps=2, batch=4)
    assert not shelf.memory and not any("keeping" in line for line in services.said)


def test_kept_values_serve_lora_and_micro_batches(examples, tmp_path, services):
    pytest.importorskip("peft")
    for options in ({"lora": {"rank": 2}}, {"micro_batch": 2}, {"recompute": True}):
        plain, weights, _ = run(examples, tmp_path / f"off{options}", services, "off", **options)
        ours, ours_weights, _ = run(examples, tmp_path / f"on{options}", services, "auto", **options)
        assert ours == pytest.approx(plain, rel=1e-5)
        for name, tensor in weights.items():
            torch.testing.assert_close(ours_weights[name], tensor, rtol=1e-4, atol=2e-5)
