"""Whole training runs against a naive implementation with a second full model: same losses, same weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from unlearn_suite import Config, Loss, LossObjective, Requirements
from unlearn_suite.engine.batch import make_roles
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.specs import Train
from unlearn_suite.testing.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

TARGET_BLOCK = 2
STEPS = 6


class Mixed(LossObjective[Config]):
    """A representation term, a retain term and a log-ratio term: every kind of reading in one loss."""

    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1, 2]), reads=3, logits=True)

    def loss(self, batch):
        f, r = batch["forget"], batch["retain"]
        h_f, h_r = (self.ctx.policy.hidden(b, [TARGET_BLOCK])[TARGET_BLOCK] for b in (f, r))
        ref = self.ctx.reference.hidden(r, [TARGET_BLOCK])[TARGET_BLOCK]
        ratio = self.ctx.policy.token_logprobs(f) - self.ctx.reference.token_logprobs(f)
        return Loss(
            {
                "steer": f.mean((h_f - 1.0).square().mean(-1)),
                "keep": r.mean((h_r - ref).square().mean(-1)),
                "ratio": f.mean_examples(torch.nn.functional.softplus(f.sum_per_example(ratio))),
            },
            {"keep": 3.0},
        )


def naive(model, tokenizer, examples, train: Train, seed: int, names):
    """Two full models, full depth, hooks, plain AdamW."""
    reference = copy.deepcopy(model)
    shape = ModelShape.of(model)
    parameters = dict(model.named_parameters())
    model.requires_grad_(False)
    trained = [parameters[n].requires_grad_(True) for n in names]
    optimizer = torch.optim.AdamW(trained, lr=train.lr, weight_decay=train.weight_decay)
    roles = make_roles(tokenizer, examples, length=train.length, seed=seed, pad_id=0)
    losses = []

    def read(m, batch):
        seen = {}
        block = m.get_submodule(shape.blocks_path)[TARGET_BLOCK]
        hook = block.register_forward_hook(lambda _m, _i, o: seen.__setitem__(0, o[0] if isinstance(o, tuple) else o))
        logits = m(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
        hook.remove()
        chosen = logits[:, :-1].log_softmax(-1).gather(2, batch.input_ids[:, 1:, None])[..., 0]
        return seen[0], torch.nn.functional.pad(chosen, (1, 0))

    for step in range(train.steps):
        f, r = (roles[name].batch(step, train.batch) for name in ("forget", "retain"))
        m_f, m_r = (b.attention_mask.bool() & (torch.arange(b.input_ids.shape[1]) > 0) for b in (f, r))
        h_f, lp_f = read(model, f)
        h_r, _ = read(model, r)
        with torch.no_grad():
            ref_r, _ = read(reference, r)
            _, ref_lp = read(reference, f)
        steer = (h_f - 1.0).square().mean(-1)[m_f].mean()
        keep = (h_r - ref_r).square().mean(-1)[m_r].mean()
        ratio = torch.nn.functional.softplus(((lp_f - ref_lp) * m_f).sum(1)).mean()
        loss = steer + 3.0 * keep + ratio
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, train.clip)
        for group in optimizer.param_groups:
            group["lr"] = train.lr * min(1.0, (step + 1) / train.warmup)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def job(examples, train: Train, folder: Path, services, losses: list[float]) -> StageJob:
    return StageJob(
        index=0,
        objective=Mixed(Config()),
        train=train,
        required_roles=("forget", "retain"),
        examples=examples,
        seed=4,
        artifacts=folder / "artifacts",
        checkpoints=folder / "checkpoints",
        services=services,
        on_step=lambda step, scalars: losses.append(scalars["loss"]),
    )


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_losses_and_weights_equal_two_full_models(arch, examples, folder, services):
    train = Train(steps=STEPS, lr=3e-3, batch=3, length=24, warmup=2, clip=1.0, weight_decay=0.01)
    tokenizer = tiny_tokenizer()
    ours, theirs = tiny_model(arch), tiny_model(arch)
    before = {name: p.detach().clone() for name, p in ours.named_parameters()}
    losses: list[float] = []
    result = run_stage(ours, tokenizer, job(examples, train, folder, services, losses))
    expected = naive(theirs, tokenizer, examples, train, 4, list(result.views.trainable))
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert abs(losses[-1] - losses[0]) > 1e-3, "nothing was learnt: the comparison would be empty"
    after, naive_after = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for name, start in before.items():
        if name in result.views.trainable:
            assert not torch.equal(after[name], start)
            torch.testing.assert_close(after[name], naive_after[name], rtol=1e-4, atol=2e-5)
        else:
            assert torch.equal(after[name], start), f"{name} must be frozen"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_gradient_does_not_depend_on_the_cut(size, examples, folder, services):
    whole, cut = [], []
    results = {}
    for name, micro, losses in (("whole", None, whole), ("cut", size, cut)):
        train = Train(steps=3, lr=1e-2, batch=6, length=24, micro_batch=micro)
        model = tiny_model("llama")
        run_stage(model, tiny_tokenizer(), job(examples, train, folder / name, services, losses))
        results[name] = dict(model.named_parameters())
    assert cut == pytest.approx(whole, rel=1e-5)
    for name, tensor in results["whole"].items():
        torch.testing.assert_close(tensor, results["cut"][name], rtol=1e-4, atol=2e-5)
