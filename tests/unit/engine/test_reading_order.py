"""Any mix of readings, by both views, in any order: no block runs twice, and the numbers are those of full passes."""

from __future__ import annotations

import copy
import random

import pytest
import torch

from unlearn_suite.engine.batch import make_roles
from unlearn_suite.engine.kept import Kept
from unlearn_suite.engine.losses import kl
from unlearn_suite.engine.row_values import row_values
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.engine.shelf import Shelf
from unlearn_suite.engine.views import ModelViews
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

BLOCKS = 4
READINGS = {
    "hidden 0": lambda views, view, b: view.hidden(b, [0])[0],
    "hidden 3, 1": lambda views, view, b: view.hidden(b, [3, 1])[3],
    "hidden 2": lambda views, view, b: view.hidden(b, [2])[2],
    "logits": lambda views, view, b: view.logits(b),
    "log-probs": lambda views, view, b: view.token_logprobs(b),
    "response": lambda views, view, b: view.token_logprobs(b, "response"),
    "kl": lambda views, view, b: views.reference.per_token(b, lambda p, _, q: kl(p, q), against=views.policy),
}


def moved(lowest):
    """A model whose trained tensors, in blocks `lowest` and 2, have moved; with an untouched copy."""
    model = tiny_model("llama")
    original = copy.deepcopy(model)
    shape = ModelShape.of(model)
    views = ModelViews(model, shape, shape.select("mlp_out", sorted({lowest, 2})))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in views.trainable.values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model, original, views


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_no_block_runs_twice_in_any_order(seed, grad, make_batch):
    rng = random.Random(seed)
    lowest = rng.choice([0, 1, 2])
    model, original, views = moved(lowest)
    batches = {"forget": make_batch([9, 4], seed=1), "retain": make_batch([5, 12, 3], seed=2)}
    todo = [(name, view, role) for name in READINGS for view in ("policy", "reference") for role in batches]
    rng.shuffle(todo)
    found = {}
    with torch.set_grad_enabled(grad):
        for name, view, role in todo:
            found[name, view, role] = READINGS[name](views, getattr(views, view), batches[role])
    assert views.replay.block_calls == len(batches) * (lowest + 2 * (BLOCKS - lowest))
    for (name, view, role), value in found.items():
        b = batches[role]
        full = model if view == "policy" else original
        out = full(
            input_ids=b.input_ids, attention_mask=b.attention_mask, use_cache=False, output_hidden_states=name[0] == "h"
        )
        real = b.attention_mask.bool()
        if name == "logits":
            assert torch.equal(value[real], out.logits[real])
        elif name in ("hidden 0", "hidden 2"):
            block = int(name[-1])
            assert torch.equal(value[real], out.hidden_states[block + 1][real])


def test_a_look_without_autograd_uses_and_leaves_what_is_there(make_batch):
    _, _, views = moved(1)
    batch = make_batch([6, 3], seed=0)
    h = views.policy.hidden(batch, [2])[2]
    with torch.no_grad():
        look = views.policy.hidden(batch, [3])[3]
        assert not views.policy.hidden(batch, [2])[2].requires_grad
    calls = views.replay.block_calls
    assert calls == 4 and not look.requires_grad
    assert views.policy.hidden(batch, [2])[2] is h
    deep = views.policy.hidden(batch, [3])[3]  # with a graph: block 3 must run for that
    assert deep.requires_grad and torch.equal(deep, look)


def test_with_kept_values_a_later_step_runs_the_policys_blocks_only(examples):
    model, _, views = moved(1)
    roles = make_roles(tiny_tokenizer(), examples, length=24, seed=0, pad_id=0)
    say = print
    args = {"width": 32, "like": next(model.parameters()), "say": say, "warn": say}
    views.keep(Kept(roles.values(), views.base_value, Shelf(), "memory", **args))
    for step in range(4):
        before = views.replay.block_calls
        batches = [data.batch(step, 3) for data in roles.values()]
        for reading in READINGS.values():
            for view in (views.policy, views.reference):
                for batch in batches:
                    reading(views, view, batch)
        views.clear()
        if step:
            assert views.replay.block_calls - before == len(batches) * (BLOCKS - 1)


def test_an_empty_batch_reads_as_nothing(make_batch):
    _, _, views = moved(1)
    none = make_batch([6, 3], seed=0).empty()
    hidden = views.policy.hidden(none, [0, 3])
    assert {k: tuple(h.shape) for k, h in hidden.items()} == {0: (0, 1, 32), 3: (0, 1, 32)}
    assert views.reference.logits(none).shape[:2] == (0, 1)
    assert float(none.mean(views.policy.token_logprobs(none))) == 0.0
    assert float(none.mean(views.reference.per_token(none, lambda p, _, q: kl(p, q), against=views.policy))) == 0.0
    assert views.replay.block_calls == 0


def test_first_and_second_derivatives_of_row_values():
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(11, 6, generator=generator, dtype=torch.double) / 2
    labels = torch.tensor([[1], [4], [10]])

    def values(a, b):
        return (a @ head.T).log_softmax(-1).gather(1, labels)[:, 0] * (b @ head.T).softmax(-1)[:, 0]

    a, b = (torch.randn(3, 6, generator=generator, dtype=torch.double, requires_grad=True) for _ in range(2))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda x, y: row_values(values, (x, y)), (a, b))
        assert check(lambda x: row_values(values, (x, b.detach())), (a,))
