"""What was scored is not run again, and what a token's neighbours are like is exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from unlearn_suite.evaluate.forward import moments_of
from unlearn_suite.evaluate.memory import ScoreMemory
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

PAIRS = [("the cat drinks", " milk"), ("the owl", " hunts mice"), ("", "rain"), ("the cat drinks", " milk")]
TEXTS = ["the cat drinks milk", "", "a fox eats hens and then it sleeps for a long time"]


@contextmanager
def passes(model: EvalModel) -> Iterator[list[int]]:
    """The sizes (rows x tokens) of the forward passes made inside."""
    sizes: list[int] = []
    handle = model.hf.model.layers[0].register_forward_pre_hook(lambda _, a: sizes.append(a[0].shape[:2].numel()))
    try:
        yield sizes
    finally:
        handle.remove()


def remembering(limit: int = 10_000) -> EvalModel:
    return EvalModel(tiny_model(), tiny_tokenizer(), memory=ScoreMemory(limit))


def test_the_same_items_are_run_once_and_give_the_same_scores() -> None:
    model, plain = remembering(), EvalModel(tiny_model(), tiny_tokenizer())
    first = (model.logprobs(PAIRS), model.rolling(TEXTS))
    assert first == (plain.logprobs(PAIRS), plain.rolling(TEXTS))
    with passes(model) as sizes:
        assert (model.logprobs(PAIRS), model.rolling(TEXTS)) == first
        assert sizes == []
        assert model.logprobs([*PAIRS, ("one", " more")])[:4] == first[0]
        assert sizes == [7]  # "one more" without its last letter


def test_scores_with_moments_serve_those_without_and_not_the_other_way() -> None:
    model = remembering()
    plain = model.logprobs(PAIRS)
    with passes(model) as sizes:
        rich = model.logprobs(PAIRS, moments=True)
        assert len(sizes) == 1
        assert model.logprobs(PAIRS, moments=True) == rich
        assert [s.logprobs for s in model.logprobs(PAIRS)] == [s.logprobs for s in plain]
        assert len(sizes) == 1
    assert not plain[0].means and len(rich[0].means) == len(rich[0].variances) == len(rich[0].tokens)


def test_it_forgets_what_was_asked_longest_ago() -> None:
    model = remembering(limit=25)
    model.logprobs(PAIRS)  # 5 + 11 + 4 tokens
    assert model.memory is not None and model.memory.tokens == 20
    model.logprobs(PAIRS[:1])
    model.logprobs([("a", " new one")])
    assert model.memory.tokens == 17
    with passes(model) as sizes:
        model.logprobs(PAIRS[:1])
        assert sizes == []
        model.logprobs(PAIRS[1:2])
        assert len(sizes) == 1


@pytest.mark.parametrize("arch", ["llama", "gemma2"])
def test_moments_equal_the_definition_in_float64(arch: str) -> None:
    hf, tokenizer = tiny_model(arch), tiny_tokenizer()
    text = "the owl hunts mice at night"
    (scores,) = EvalModel(hf, tokenizer).rolling([text], moments=True)
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(text)]])
    with torch.no_grad():
        logp = hf.double()(input_ids=ids).logits[0, :-1].log_softmax(dim=-1)
    mean = (logp.exp() * logp).sum(-1)
    variance = (logp.exp() * logp.square()).sum(-1) - mean.square()
    assert scores.means == pytest.approx(mean.tolist(), abs=1e-4)
    assert scores.variances == pytest.approx(variance.tolist(), abs=1e-4)


def test_moments_by_hand() -> None:
    half = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]).log().clamp(min=-1e4)
    mean, variance = moments_of(half)
    log2 = torch.tensor(2.0).log()
    assert mean.tolist() == pytest.approx([-1.5 * float(log2), 0.0])
    assert variance.tolist() == pytest.approx([0.25 * float(log2) ** 2, 0.0])
