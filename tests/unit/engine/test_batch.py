"""Batches: masks, means, cutting, and an order that is a pure function of the seed and the step."""

from __future__ import annotations

import pytest
import torch

from unlearn_suite.engine.batch import RoleData, encode, make_roles
from unlearn_suite.specs import Example
from unlearn_suite.testing.tiny import tiny_tokenizer


def test_masks_leave_out_padding_first_token_and_prompt(make_batch):
    batch = make_batch([5, 3], seed=0, prompt=2)
    assert batch.mask("content").tolist() == [[False, True, True, True, True], [False, True, True, False, False]]
    assert batch.mask("response").tolist() == [[False, False, True, True, True], [False, False, True, False, False]]


def test_mean_ignores_masked_values_even_nan(make_batch):
    batch = make_batch([4, 2], seed=0)
    x = torch.full(batch.input_ids.shape, torch.nan)
    x[batch.mask("content")] = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert float(batch.mean(x)) == 3.0


def test_micro_batch_means_add_up_to_the_whole(make_batch):
    batch = make_batch([9, 3, 6, 2, 7], seed=1)
    x = torch.randn(batch.input_ids.shape, generator=torch.Generator().manual_seed(0))
    parts = batch.split(2)
    assert [len(p.examples) for p in parts] == [2, 2, 1]
    start, total = 0, 0.0
    for part in parts:
        rows, width = part.input_ids.shape
        total += float(part.mean(x[start : start + rows, :width], "response"))
        start += rows
    assert total == pytest.approx(float(batch.mean(x, "response")), rel=1e-6)


def test_prompt_and_text_meet_exactly():
    tokenizer = tiny_tokenizer(add_bos=True)
    (one,) = encode(tokenizer, [Example("a", " world", prompt="hello")], 64)
    assert one.response_start == len("hello") + 1  # bos
    assert tokenizer.decode(one.input_ids[one.response_start :]) == " world"
    (plain,) = encode(tokenizer, [Example("b", "hello")], 64)
    assert plain.response_start == 0 and plain.input_ids[0] == 1


def test_a_long_prompt_keeps_its_end_and_leaves_room():
    (one,) = encode(tiny_tokenizer(), [Example("a", "text", prompt="x" * 50 + "END")], 10)
    assert len(one.input_ids) == 10
    assert tiny_tokenizer().decode(one.input_ids) == "xxxENDtext"


def test_pad_equal_to_eos_stays_visible():
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    ids = (5, tokenizer.eos_token_id, 6)
    from unlearn_suite.engine.batch import Encoded, collate

    batch = collate([Encoded(Example("a"), ids, 0), Encoded(Example("b"), (5, 6, 7, 8), 0)], tokenizer.pad_token_id)
    assert batch.attention_mask[0].tolist() == [1, 1, 1, 0]


def test_order_is_a_function_of_seed_role_and_step():
    examples = [Example(str(i), "abc" + "d" * i) for i in range(7)]
    encoded = encode(tiny_tokenizer(), examples, 64)

    def ids(data: RoleData, steps) -> list[str]:
        return [e.id for step in steps for e in data.batch(step, 3).examples]

    one = RoleData("forget", encoded, 0, seed=1)
    forwards = ids(one, range(7))
    assert ids(RoleData("forget", encoded, 0, seed=1), reversed(range(7)))[-3:] == forwards[:3]
    assert sorted(forwards[:7]) == sorted(e.id for e in examples)  # an epoch holds every example once
    assert sorted(forwards[7:14]) == sorted(e.id for e in examples)
    assert forwards[:7] != forwards[7:14]
    assert ids(RoleData("forget", encoded, 0, seed=2), range(7)) != forwards
    assert ids(RoleData("retain", encoded, 0, seed=1), range(7)) != forwards


def test_roles_without_text_are_left_out():
    roles = make_roles(
        tiny_tokenizer(),
        {"forget": [Example("a", "some text")], "prompts": []},
        length=16,
        seed=0,
        pad_id=0,
    )
    assert set(roles) == {"forget"}
