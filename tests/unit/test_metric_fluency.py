"""The `fluency` metric: the model's own text, read by another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unlearn_suite import Example, PrerequisiteError
from unlearn_suite.builtin.metrics.fluency import Fluency, FluencyConfig
from unlearn_suite.builtin.metrics.generations import Generations, GenerationsConfig
from unlearn_suite.evaluate.memory import ScoreMemory
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.testing.tiny import save_tiny, tiny_model, tiny_tokenizer

EXAMPLES = [Example("a", prompt="Say something"), Example("b", text="Or this", group="g")]
PROMPTS = ["Say something", "Or this"]
SAMPLING = {"n": 2, "max_new_tokens": 6, "temperature": 1.0, "top_p": 0.9}


def trained(seed: int = 0):
    """A model whose block-1 MLP output was changed, and the values it had."""
    model = tiny_model()
    weight = model.get_parameter("model.layers.1.mlp.down_proj.weight")
    before = {"model.layers.1.mlp.down_proj.weight": weight.detach().clone()}
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
    return model, before


def expected(hf, prompt: str, texts: list[str]) -> float:
    """Nats per token by transformers' own pass over prompt and continuation, in float64."""
    tokenizer, total, count = tiny_tokenizer(), 0.0, 0
    for text in (t for t in texts if t.strip()):
        start = len(tokenizer(prompt)["input_ids"])
        ids = torch.tensor([tokenizer(prompt + text)["input_ids"]])
        with torch.no_grad():
            logprobs = hf(ids).logits.double()[0, :-1].log_softmax(-1)
        total -= float(logprobs.gather(-1, ids[0, 1:, None])[start - 1 :].sum())
        count += ids.shape[1] - start
    return total / count


def test_it_is_the_untouched_models_perplexity_of_what_the_trained_one_writes() -> None:
    hf, before = trained()
    model = EvalModel(hf, tiny_tokenizer(), originals=before)
    now = {n: p.detach().clone() for n, p in hf.named_parameters()}
    rows = list(Fluency(FluencyConfig(**SAMPLING)).score(model, EXAMPLES, 3))
    written = model.generate(PROMPTS, seed=3, **SAMPLING)
    untouched = tiny_model().double()
    for row, prompt, texts in zip(rows, PROMPTS, written, strict=True):
        assert row.values["perplexity"] == pytest.approx(expected(untouched, prompt, texts), rel=1e-5)
        assert row.values["perplexity"] != pytest.approx(expected(hf.double(), prompt, texts), rel=1e-2)
    hf.float()
    for name, parameter in hf.named_parameters():
        assert torch.equal(parameter, now[name]), name


def test_a_folder_may_be_the_judge(tmp_path: Path) -> None:
    model = EvalModel(tiny_model(), tiny_tokenizer())
    folder = save_tiny(tmp_path / "judge", seed=3)
    rows = list(Fluency(FluencyConfig(reference=folder, **SAMPLING)).score(model, EXAMPLES, 0))
    written = model.generate(PROMPTS, **SAMPLING)
    other = tiny_model(seed=3).double()
    for row, prompt, texts in zip(rows, PROMPTS, written, strict=True):
        assert row.values["perplexity"] == pytest.approx(expected(other, prompt, texts), rel=1e-5)
    with pytest.raises(PrerequisiteError, match="holds no model"):
        list(Fluency(FluencyConfig(reference=tmp_path / "nowhere")).score(model, EXAMPLES, 0))


def test_what_another_metric_has_sampled_is_not_sampled_again() -> None:
    hf = tiny_model()
    passes = []
    hf.model.layers[0].register_forward_hook(lambda *_: passes.append(1))
    model = EvalModel(hf, tiny_tokenizer(), memory=ScoreMemory())
    list(Generations(GenerationsConfig(**SAMPLING)).score(model, EXAMPLES, 1))
    first = len(passes)
    alone = list(Fluency(FluencyConfig(**SAMPLING)).score(EvalModel(tiny_model(), tiny_tokenizer()), EXAMPLES, 1))
    shared = list(Fluency(FluencyConfig(**SAMPLING)).score(model, EXAMPLES, 1))
    assert first >= 6 and len(passes) == first + 1, "one pass to read what was written"
    assert [r.values for r in shared] == [pytest.approx(r.values) for r in alone]
    list(Fluency(FluencyConfig(**SAMPLING)).score(model, EXAMPLES, 2))
    assert len(passes) > first + 2, "another seed is other text"


def test_blank_text_has_no_perplexity(monkeypatch: pytest.MonkeyPatch) -> None:
    model = EvalModel(tiny_model(), tiny_tokenizer())
    monkeypatch.setattr(model, "generate", lambda *_, **__: [["", " "], ["", " a word"]])
    one, two = Fluency(FluencyConfig(n=2)).score(model, EXAMPLES, 0)
    assert "perplexity" not in one.values and one.values["empty"] == 1.0
    assert two.values["perplexity"] > 0 and two.values["empty"] == 0.5
