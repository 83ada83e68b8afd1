"""Log-probabilities equal a naive float64 computation, whatever the batch, padding or shared prefix."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from unlearn_suite.errors import PrerequisiteError, SuiteError
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.testing.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

QUESTION = "Which of these animals lives in the sea and sings?"
PAIRS = [
    ("The capital of France is", " Paris"),
    (QUESTION, " the whale"),
    ("", "A text without a context"),
    (QUESTION, " a cow"),
    ("One space at the end ", "stays one space"),
    (QUESTION, " an old shoe"),
    ("a", "b"),
    (QUESTION, " a cat"),
]


def naive(model: Any, context: Sequence[int], continuation: Sequence[int]) -> list[float]:
    """One sequence at a time, in float64, all positions through the head."""
    exact = copy.deepcopy(model).double()
    ids = torch.tensor([[*context, *continuation]])
    with torch.no_grad():
        logprobs = exact(input_ids=ids, use_cache=False).logits[0].double().log_softmax(dim=-1)
    start = len(context)
    return [float(logprobs[start + i - 1, token]) for i, token in enumerate(continuation)]


def tokens_read(model: EvalModel, pairs: Sequence[tuple[str, str]]) -> int:
    """Tokens (padding included) that went through the blocks."""
    count = 0

    def hook(module: Any, args: Any) -> None:
        nonlocal count
        count += args[0].shape[:2].numel()

    handle = model.hf.model.layers[0].register_forward_pre_hook(hook)
    try:
        model.logprobs(pairs)
    finally:
        handle.remove()
    return count


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_equals_naive_float64_on_every_architecture(arch: str) -> None:
    hf, tokenizer = tiny_model(arch), tiny_tokenizer()
    for (context, continuation), scores in zip(PAIRS, EvalModel(hf, tokenizer).logprobs(PAIRS), strict=True):
        text = context + continuation
        ids = tokenizer.encode(text)
        split = len(context.rstrip())
        given = ids[:split] or [tokenizer.bos_token_id]
        expected = naive(hf, given, ids[split:])
        assert list(scores.tokens) == ids[split:]
        assert list(scores.logprobs) == pytest.approx(expected, abs=1e-4)
        assert scores.total == pytest.approx(sum(expected), abs=1e-3)
        assert scores.mean_nll == pytest.approx(-sum(expected) / len(expected), abs=1e-4)


def test_greedy_marks_exactly_the_most_probable_tokens() -> None:
    hf, tokenizer = tiny_model(), tiny_tokenizer()
    context = "Once upon a time"
    ids = torch.tensor([tokenizer.encode(context)])
    with torch.no_grad():
        best = int(hf(input_ids=ids).logits[0, -1].argmax())
    letter = tokenizer.decode([best])
    other = "x" if letter != "x" else "y"
    right, wrong, mixed = EvalModel(hf, tokenizer).logprobs(
        [(context, letter), (context, other), (context, letter + other + "q")]
    )
    assert right.exact and not wrong.exact
    assert mixed.greedy[0] and not mixed.exact


@pytest.mark.parametrize("arch", ["llama", "gemma3", "gpt2", "mistral"])
def test_neither_batch_size_nor_company_changes_a_score(arch: str) -> None:
    hf, tokenizer = tiny_model(arch), tiny_tokenizer()
    alone = [EvalModel(hf, tokenizer).logprobs([pair])[0].total for pair in PAIRS]
    for budget in (1, 100, 100_000):
        together = EvalModel(hf, tokenizer, batch_tokens=budget).logprobs(PAIRS)
        assert [s.total for s in together] == pytest.approx(alone, abs=2e-5)


def test_a_shared_context_is_read_once() -> None:
    model = EvalModel(tiny_model(), tiny_tokenizer(), batch_tokens=100_000)
    choices = [(QUESTION, " whale"), (QUESTION, " eagle"), (QUESTION, " mouse"), (QUESTION, " camel")]
    n = len(QUESTION)
    assert tokens_read(model, choices) == (n - 1) + 4 * len(" whale")
    assert tokens_read(model, [(QUESTION + "\nAnswer:", letter) for letter in "ABCD"]) == n + len("\nAnswer:")


def test_a_long_text_loses_its_beginning_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    hf, tokenizer = tiny_model(), tiny_tokenizer()
    model = EvalModel(hf, tokenizer, max_length=12)
    context, continuation = "the quick brown fox jumps", " over"
    with caplog.at_level(logging.WARNING):
        scores = model.logprobs([(context, continuation)])[0]
    kept = tokenizer.encode(context + continuation)[-13:]
    assert list(scores.logprobs) == pytest.approx(naive(hf, kept[:8], kept[8:]), abs=1e-4)
    assert "12 tokens" in caplog.text


def test_rolling_predicts_every_token_once_in_full_windows() -> None:
    hf, tokenizer = tiny_model(), tiny_tokenizer()
    text = "abcdefghijklmnopqrstuvwxyz"
    ids = tokenizer.encode(text)
    short, long, empty = EvalModel(hf, tokenizer, max_length=10).rolling(["hi there", text, ""])
    assert short.total == pytest.approx(sum(naive(hf, [1], tokenizer.encode("hi there"))), abs=1e-4)
    expected = naive(hf, [1], ids[:10]) + naive(hf, ids[9:10], ids[10:20]) + naive(hf, ids[15:20], ids[20:])
    assert list(long.tokens) == ids
    assert list(long.logprobs) == pytest.approx(expected, abs=1e-4)
    assert empty.tokens == ()
    cut = EvalModel(hf, tokenizer, max_length=10).rolling([text], max_tokens=7)[0]
    assert list(cut.logprobs) == pytest.approx(expected[:7], abs=1e-4)


def test_a_beginning_of_sequence_token_comes_once() -> None:
    model = EvalModel(tiny_model(), tiny_tokenizer(add_bos=True))
    plain = EvalModel(tiny_model(), tiny_tokenizer())
    with_bos, written = model.logprobs([("hello", " you"), ("<bos>hello", " you")])
    by_hand = plain.logprobs([("<bos>hello", " you")])[0]
    assert with_bos.logprobs == pytest.approx(by_hand.logprobs, abs=1e-5)
    assert written.logprobs == pytest.approx(by_hand.logprobs, abs=1e-5)


@pytest.mark.parametrize("text", ["hello you", "<bos>hello you"])
def test_running_text_begins_behind_the_beginning_of_sequence_token(text: str) -> None:
    """The tokens of a text without a prompt are the same ones however it is scored, and the beginning is none."""
    model = EvalModel(tiny_model(), tiny_tokenizer(add_bos=True))
    (running,), (scored,) = model.rolling([text]), model.logprobs([("", text)])
    assert running.logprobs == pytest.approx(scored.logprobs, abs=1e-6)
    assert len(running.logprobs) == len(tiny_tokenizer()("hello you")["input_ids"])


def test_bfloat16_is_close_and_scored_in_float32() -> None:
    exact = EvalModel(tiny_model(), tiny_tokenizer()).logprobs(PAIRS)
    rough = EvalModel(tiny_model().bfloat16(), tiny_tokenizer()).logprobs(PAIRS)
    for a, b in zip(exact, rough, strict=True):
        assert b.mean_nll == pytest.approx(a.mean_nll, abs=0.15)


def test_the_model_comes_back_as_it_was() -> None:
    hf = tiny_model()
    before = {name: p.clone() for name, p in hf.named_parameters()}
    hf.train()
    model = EvalModel(hf, tiny_tokenizer())
    model.logprobs(PAIRS)
    model.generate(["a"], max_new_tokens=2)
    assert hf.training
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in hf.named_parameters())
    loss = hf(input_ids=torch.tensor([[5, 6, 7]])).logits.square().mean()
    loss.backward()  # nothing that evaluation left behind stands in the way of training
    assert math.isfinite(loss.item())


def test_clear_errors_for_what_cannot_be_scored() -> None:
    model = EvalModel(tiny_model(), tiny_tokenizer(), max_length=8)
    with pytest.raises(SuiteError, match="no token to score") as empty:
        model.logprobs([("context", "")])
    assert empty.value.code == "empty-continuation"
    with pytest.raises(SuiteError, match="exceeds the model's context of 8"):
        model.logprobs([("c", "a continuation of many tokens")])
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(PrerequisiteError, match="neither"):
        EvalModel(tiny_model(), tokenizer).rolling(["text"])


def test_progress_counts_to_the_end() -> None:
    model = EvalModel(tiny_model(), tiny_tokenizer(), batch_tokens=40)
    seen: list[tuple[int, int]] = []
    model.progress = lambda done, total: seen.append((done, total))
    model.logprobs(PAIRS)
    assert seen[-1] == (len(PAIRS), len(PAIRS)) and len(seen) > 2
    assert seen == sorted(seen)


@pytest.mark.parametrize("arch", ["llama", "gemma2", "gpt2"])
def test_worked_examples_before_every_question_are_read_once_a_batch(arch: str) -> None:
    shots = "Question: what flies? Answer: a bird. Question: what swims? Answer: a fish. "
    pairs = [(f"{shots}Question: what {word}? Answer:", f" {word[:3]}") for word in ("runs", "sings", "barks", "grows")]
    hf, tokenizer = tiny_model(arch), tiny_tokenizer()
    model = EvalModel(hf, tokenizer, batch_tokens=220)
    for (context, continuation), scores in zip(pairs, model.logprobs(pairs), strict=True):
        expected = naive(hf, tokenizer.encode(context), tokenizer.encode(continuation))
        assert list(scores.logprobs) == pytest.approx(expected, abs=1e-4)
    if arch == "llama":
        together = tokens_read(model, pairs)
        assert together < 2 * len(shots) + 4 * 40  # two batches
        assert sum(tokens_read(model, [pair]) for pair in pairs) > 1.5 * together
