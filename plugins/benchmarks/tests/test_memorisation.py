"""Metrics of memorised text against their definitions in float64, by hand, and scikit-learn."""

from __future__ import annotations

import copy
import json
import math
import random
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from unlearn_suite import EvalModel, Example, PlanError, PrerequisiteError, TokenScores
from unlearn_suite.builtin.metrics.rouge import Rouge, RougeConfig
from unlearn_suite.evaluate.memory import ScoreMemory
from unlearn_suite.report.ranked import ranked
from unlearn_suite.testing.conformance.eval_models import oracle
from unlearn_suite.testing.tiny import save_tiny, tiny_model, tiny_tokenizer
from unlearn_suite_benchmarks.memorisation.config import ExtractionConfig, MatchConfig, MiaConfig
from unlearn_suite_benchmarks.memorisation.matches import ExactMemorisation, ExtractionStrength, extraction_strength
from unlearn_suite_benchmarks.memorisation.mia import Mia, min_k, min_k_plus_plus, zlib_ratio

GOLDEN = json.loads((Path(__file__).parent / "memorisation_golden.json").read_text())
EXAMPLES = [
    Example("a", text="rain falls in april", group="member"),
    Example("b", prompt="the fox", text="eats hens", group="member"),
    Example("c", text="aaaaaaaaaaaaaaaaaaaaaaaaa", group="non-member"),
    Example("d", prompt="snow lies ", text="on the hills", group="non-member"),
]


def test_extraction_strength_by_hand() -> None:
    yes, no = True, False
    assert extraction_strength([yes, yes, yes]) == 1
    assert extraction_strength([yes, no, yes, yes]) == 0.5
    assert extraction_strength([yes, yes, no]) == 0
    # OpenUnlearning's loop ends at the last token, matched or not
    assert extraction_strength([yes, yes, no], legacy=True) == pytest.approx(1 / 3)
    assert extraction_strength([no], legacy=True) == 1
    draw = random.Random(0)
    for _ in range(200):
        matches = [draw.random() < 0.7 for _ in range(draw.randint(1, 9))]
        n = len(matches)
        assert extraction_strength(matches) == 1 - min(k for k in range(n + 1) if all(matches[k:])) / n
        coded = next((k for k in range(n) if all(matches[k:])), n - 1)
        assert extraction_strength(matches, legacy=True) == 1 - coded / n


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0], [-3.0, 1.0, 4.0], [0.0, 0.0, 0.0], [5.0, -5.0, 0.0]])
TOKENS = [0, 2, 1, 1, 0]


def by_hand() -> tuple[TokenScores, np.ndarray, np.ndarray]:
    """Five positions of a vocabulary of three, in float64: scores, log p [5, 3], log p of the tokens [5]."""
    logp = log_softmax(LOGITS)
    mean = (np.exp(logp) * logp).sum(axis=1)
    variance = (np.exp(logp) * (logp - mean[:, None]) ** 2).sum(axis=1)
    chosen = logp[np.arange(5), TOKENS]
    greedy = tuple(bool(b) for b in logp.argmax(axis=1) == TOKENS)
    return TokenScores(tuple(TOKENS), tuple(chosen), greedy, tuple(mean), tuple(variance)), logp, chosen


def test_scores_of_hand_made_logits() -> None:
    scores, logp, chosen = by_hand()
    # 2 of 5 at k = .4, the two least probable tokens: those of positions 1 and 2
    assert min_k(scores.logprobs, 0.4) == pytest.approx(-np.sort(chosen)[:2].mean())
    assert min_k(scores.logprobs, 0.4) == pytest.approx(-(chosen[1] + chosen[2]) / 2)
    assert min_k(scores.logprobs, 0.1) == pytest.approx(-chosen[2])  # one at least
    assert min_k(scores.logprobs, 1.0) == pytest.approx(scores.mean_nll)
    p = np.exp(logp)
    mu = (p * logp).sum(axis=1)
    sigma = np.sqrt(np.clip((p * logp**2).sum(axis=1) - mu**2, 1e-6, None))
    standardised = (chosen - mu) / sigma
    assert standardised[3] == pytest.approx(0)  # all equally likely: a variance of 0 is raised to 1e-6
    assert min_k_plus_plus(scores, 0.4) == pytest.approx(-np.sort(standardised)[:2].mean())
    text = "the same text"
    assert zlib_ratio(scores.mean_nll, text) == pytest.approx(-chosen.mean() / len(zlib.compress(text.encode())))


def naive(hf: Any, tokenizer: Any, example: Example) -> dict[str, float]:
    """Every score of one text in float64, all positions through the head, by autograd over a plain loss."""
    model = copy.deepcopy(hf).double()
    prompt = example.prompt.rstrip()
    given = tokenizer.encode(prompt) or [tokenizer.bos_token_id]
    text = example.prompt[len(prompt) :] + example.text
    scored = tokenizer.encode(text if not prompt or text[0].isspace() else " " + text)
    ids = torch.tensor([[*given, *scored]])
    logp = model(input_ids=ids).logits[0, len(given) - 1 : -1].log_softmax(-1)
    chosen = logp[torch.arange(len(scored)), scored]
    loss = -chosen.mean()
    loss.backward()
    mu = (logp.exp() * logp).sum(-1)
    sigma = ((logp.exp() * logp**2).sum(-1) - mu**2).clamp_min(1e-6).sqrt()
    count = int(0.4 * len(scored))
    matches = (logp.argmax(-1) == torch.tensor(scored)).tolist()
    return {
        "loss": loss.item(),
        "min-k": -chosen.sort().values[:count].mean().item(),
        "min-k-plus-plus": -((chosen - mu) / sigma).sort().values[:count].mean().item(),
        "zlib": loss.item() / len(zlib.compress(example.text.encode())),
        "gradnorm": float(torch.stack([q.grad.norm() for q in model.parameters()]).mean()),
        "share": sum(matches) / len(matches),
        "strength": 1 - min(k for k in range(len(matches) + 1) if all(matches[k:])) / len(matches),
    }


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_all_scores_equal_a_naive_float64_computation(arch: str) -> None:
    hf, tokenizer = tiny_model(arch), tiny_tokenizer()
    model = EvalModel(hf, tokenizer)
    wanted = [naive(hf, tokenizer, e) for e in EXAMPLES]
    rows = list(Mia(MiaConfig(gradnorm=True)).score(model, EXAMPLES, 0))
    assert [row.id for row in rows] == ["a", "b", "c", "d"]
    assert [row.group for row in rows] == [e.group for e in EXAMPLES]
    for row, want in zip(rows, wanted, strict=True):
        for name, value in row.values.items():
            assert value == pytest.approx(want[name], rel=1e-4, abs=1e-5), name
    shares = [row.values["share"] for row in ExactMemorisation(MatchConfig()).score(model, EXAMPLES, 0)]
    assert shares == pytest.approx([want["share"] for want in wanted])
    strengths = [r.values["strength"] for r in ExtractionStrength(ExtractionConfig()).score(model, EXAMPLES, 0)]
    assert strengths == pytest.approx([want["strength"] for want in wanted])
    assert all(not p.grad_fn and p.grad is None for p in hf.parameters()) and not hf.training


def test_a_text_that_the_model_writes_itself_has_full_strength() -> None:
    model = EvalModel(oracle((("one and", " two"),)), tiny_tokenizer())
    texts = {"known": "two", "wrong end": "twx"}
    examples = [Example(name, prompt="one and", text=text) for name, text in texts.items()]
    found = [row.values["strength"] for row in ExtractionStrength(ExtractionConfig()).score(model, examples, 0)]
    assert found == [1.0, 0.0]
    coded = ExtractionStrength(ExtractionConfig(mode="legacy"))
    legacy = [row.values["strength"] for row in coded.score(model, examples, 0)]
    assert legacy == [1.0, 0.25]  # four tokens, the space is one


def test_values_are_those_of_openunlearnings_code(tmp_path: Path) -> None:
    model = EvalModel(tiny_model(), tiny_tokenizer())
    save_tiny(tmp_path / "other", seed=1)
    examples = [Example(str(i), text, prompt, group="member") for i, (prompt, text) in enumerate(GOLDEN["texts"])]
    mia = list(Mia(MiaConfig(gradnorm=True, reference=tmp_path / "other", separator="")).score(model, examples, 0))
    found = {name: [row.values[name] for row in mia] for name in mia[0].values}
    coded = ExtractionStrength(ExtractionConfig(mode="legacy", separator="")).score(model, examples, 0)
    found["extraction-strength"] = [row.values["strength"] for row in coded]
    found["exact-memorisation"] = [
        r.values["share"] for r in ExactMemorisation(MatchConfig(separator="")).score(model, examples, 0)
    ]
    rouge = list(Rouge(RougeConfig(max_new_tokens=16)).score(model, examples, 0))
    found |= {name: [row.values[name] for row in rouge] for name in ("rouge1-recall", "rougeL-f1", "rougeL-recall")}
    assert found.keys() == GOLDEN["values"].keys()
    for name, values in GOLDEN["values"].items():
        assert found[name] == pytest.approx(values, rel=1e-4, abs=2e-5), name
    own = [row.values["strength"] for row in ExtractionStrength(ExtractionConfig()).score(model, examples, 0)]
    assert own[:4] == [0.0] * 4 and min(found["extraction-strength"][:4]) > 0  # the floor of 1 / n that is none here


def test_the_reference_is_a_model_of_its_own(tmp_path: Any) -> None:
    save_tiny(tmp_path / "before", seed=5)
    model = EvalModel(tiny_model(), tiny_tokenizer())
    rows = list(Mia(MiaConfig(reference=tmp_path / "before")).score(model, EXAMPLES, 0))
    other = Mia(MiaConfig()).score(EvalModel(tiny_model(seed=5), tiny_tokenizer()), EXAMPLES, 0)
    for row, before in zip(rows, other, strict=True):
        assert row.values["reference"] == pytest.approx(row.values["loss"] - before.values["loss"], abs=1e-5)
    with pytest.raises(PrerequisiteError, match="no model that can be loaded"):
        list(Mia(MiaConfig(reference=tmp_path)).score(model, EXAMPLES, 0))


def test_the_published_weights_are_there_for_a_while_and_the_own_ones_come_back_bit_for_bit() -> None:
    hf, published = tiny_model(), tiny_model(seed=5)
    own = {name: p.detach().clone() for name, p in hf.named_parameters()}
    originals = {name: p.detach().clone() for name, p in published.named_parameters()}
    model = EvalModel(hf, tiny_tokenizer(), memory=ScoreMemory(), originals=originals)
    rows = list(Mia(MiaConfig(reference="published")).score(model, EXAMPLES, 0))
    other = Mia(MiaConfig()).score(EvalModel(published, tiny_tokenizer()), EXAMPLES, 0)
    for row, before in zip(rows, other, strict=True):
        assert row.values["reference"] == pytest.approx(row.values["loss"] - before.values["loss"], abs=1e-6)
    assert all(torch.equal(p, own[name]) for name, p in hf.named_parameters())
    assert all(torch.equal(p, originals[name]) for name, p in published.named_parameters())
    untouched = Mia(MiaConfig(reference="published")).score(EvalModel(hf, tiny_tokenizer()), EXAMPLES, 0)
    assert {row.values["reference"] for row in untouched} == {0.0}


def test_groups_are_asked_for() -> None:
    with pytest.raises(PlanError, match="'x' is of the group ''"):
        list(Mia(MiaConfig()).score(EvalModel(tiny_model(), tiny_tokenizer()), [Example("x", text="y")], 0))


def test_higher_means_less_likely_a_member() -> None:
    """A model that was trained on the members ranks every non-member above them."""
    texts = ["rain falls in april", "snow lies on hills", "wind blows at sea", "fog hides roads"]
    hf = oracle(tuple(("", text) for text in texts[:2]))
    model = EvalModel(hf, tiny_tokenizer())
    examples = [Example(str(i), text=t, group="member" if i < 2 else "non-member") for i, t in enumerate(texts)]
    rows = list(Mia(MiaConfig()).score(model, examples, 0))
    labels = [row.group == "non-member" for row in rows]
    for name in ("loss", "zlib", "min-k", "min-k-plus-plus"):
        assert roc_auc_score(labels, [row.values[name] for row in rows]) == 1.0, name
    assert math.isfinite(rows[0].values["min-k-plus-plus"])


def test_the_auc_of_the_report_is_scikit_learns() -> None:
    texts = [f"{first} {second} on hills" for first in ("rain", "snow", "wind") for second in ("falls", "lies", "is")]
    examples = [Example(str(i), text=t, group="member" if i % 2 else "non-member") for i, t in enumerate(texts)]
    rows = [asdict(row) for row in Mia(MiaConfig()).score(EvalModel(tiny_model(), tiny_tokenizer()), examples, 0)]
    labels = [row["group"] == "non-member" for row in rows]
    for name in rows[0]["values"]:
        wanted = roc_auc_score(labels, [row["values"][name] for row in rows])
        assert ranked([rows], name).resampled("auc").point == pytest.approx(wanted), name
