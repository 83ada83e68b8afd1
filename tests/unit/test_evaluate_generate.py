"""Greedy text equals transformers' own; sampled text depends on (seed, prompt, sample) and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unlearn_suite.evaluate.generate import choose, uniforms
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

PROMPTS = ["The weather today is", "Hi", "A much longer prompt, to be padded against the others", "x = 1\n"]


def reference(hf: Any, tokenizer: Any, prompt: str, count: int) -> str:
    ids = torch.tensor([tokenizer.encode(prompt)])
    out = hf.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=2,
    )
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen3", "mistral"])
def test_greedy_equals_transformers(arch: str) -> None:
    hf, tokenizer = tiny_model(arch), tiny_tokenizer()
    texts = EvalModel(hf, tokenizer).generate(PROMPTS, max_new_tokens=12, temperature=0)
    assert [t[0] for t in texts] == [reference(hf, tokenizer, p, 12) for p in PROMPTS]


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_samples_do_not_depend_on_the_batch(arch: str) -> None:
    hf, tokenizer = tiny_model(arch), tiny_tokenizer()
    options: dict[str, Any] = {"max_new_tokens": 12, "n": 3, "top_p": 0.9, "seed": 7}
    whole = EvalModel(hf, tokenizer, rows=64).generate(PROMPTS, **options)
    assert EvalModel(hf, tokenizer, rows=1).generate(PROMPTS, **options) == whole
    assert EvalModel(hf, tokenizer, rows=5).generate(PROMPTS, **options) == whole
    assert EvalModel(hf, tokenizer).generate(PROMPTS[:2], **options) == whole[:2]
    fewer = EvalModel(hf, tokenizer).generate(PROMPTS, **{**options, "n": 2})
    assert fewer == [samples[:2] for samples in whole]


def test_seeds_prompts_and_samples_have_streams_of_their_own() -> None:
    model = EvalModel(tiny_model(), tiny_tokenizer())
    texts = model.generate(["same", "same"], max_new_tokens=12, n=2, seed=0)
    other = model.generate(["same", "same"], max_new_tokens=12, n=2, seed=1)
    assert len({*texts[0], *texts[1], *other[0], *other[1]}) == 8


def test_greedy_copies_are_equal() -> None:
    texts = EvalModel(tiny_model(), tiny_tokenizer()).generate(["abc"], max_new_tokens=5, n=3, temperature=0)
    assert len(texts[0]) == 3 and len(set(texts[0])) == 1


def test_the_end_token_ends_a_text_and_is_not_in_it() -> None:
    hf, tokenizer = tiny_model(), tiny_tokenizer()
    free = EvalModel(hf, tokenizer).generate(PROMPTS, max_new_tokens=15, temperature=0)
    letter = free[0][0][6]
    hf.generation_config.eos_token_id = [2, tokenizer.convert_tokens_to_ids(letter)]
    ended = EvalModel(hf, tokenizer).generate(PROMPTS, max_new_tokens=15, temperature=0)
    assert [e[0] for e in ended] == [f[0].split(letter)[0] for f in free]


def test_a_stop_string_ends_a_text_before_it() -> None:
    model = EvalModel(tiny_model(), tiny_tokenizer())
    free = model.generate(PROMPTS, max_new_tokens=15, temperature=0)
    stop = free[0][0][4:6]
    stopped = model.generate(PROMPTS, max_new_tokens=15, temperature=0, stop=[stop])
    assert [s[0] for s in stopped] == [f[0].split(stop)[0] for f in free]


def test_a_long_prompt_keeps_its_end() -> None:
    hf, tokenizer = tiny_model(), tiny_tokenizer()
    model = EvalModel(hf, tokenizer, max_length=20)
    text = model.generate(["the beginning is lost, the end is kept"], max_new_tokens=8, temperature=0)[0][0]
    assert text == reference(hf, tokenizer, "the end is kept"[-12:], 8)


def nucleus(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """The definition: the smallest set of most probable tokens whose mass reaches top_p, renormalised."""
    order = sorted(range(len(probs)), key=lambda i: -float(probs[i]))
    kept, mass = [], 0.0
    for index in order:
        kept.append(index)
        mass += float(probs[index])
        if mass >= top_p:
            break
    out = torch.zeros(len(probs), dtype=torch.float64)
    out[kept] = probs[kept].double() / mass
    return out


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.9), (0.5, 0.7), (1.0, 1.0), (2.0, 0.3)])
def test_frequencies_are_those_of_the_nucleus(temperature: float, top_p: float) -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, 3.0, 0.0, -4.0])
    count = 20_000
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count  # a grid: no sampling error
    chosen = choose(logits.expand(count, -1), u, temperature, top_p)
    frequencies = torch.bincount(chosen, minlength=len(logits)).double() / count
    expected = nucleus((logits / temperature).softmax(dim=0), top_p)
    assert torch.allclose(frequencies, expected, atol=2 / count)


def test_a_nucleus_wider_than_the_first_candidates_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((3, 9000), generator=generator) * torch.tensor([[0.01], [1.5], [8.0]])
    u = torch.tensor([0.999, 0.8, 0.3], dtype=torch.float64)
    chosen = choose(logits, u, 1.0, 0.9)
    for row in range(3):
        order = logits[row].argsort(descending=True)
        cdf = nucleus(logits[row].softmax(dim=0), 0.9)[order].cumsum(dim=0)
        assert chosen[row] == order[int((cdf <= u[row]).sum())]


def test_extreme_draws_stay_inside_the_nucleus() -> None:
    logits = torch.tensor([[5.0, 4.0, -30.0, -40.0]]).expand(2, -1)
    u = torch.tensor([0.0, 1.0 - 1e-16], dtype=torch.float64)
    assert choose(logits, u, 1.0, 0.95).tolist() == [0, 1]


def test_draws_are_uniform_and_repeatable() -> None:
    u = torch.cat([uniforms(0, prompt, sample, 20) for prompt in range(50) for sample in range(10)])
    assert torch.equal(uniforms(3, 4, 5, 8), uniforms(3, 4, 5, 8))
    assert float(u.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(u.var()) == pytest.approx(1 / 12, abs=0.003)
