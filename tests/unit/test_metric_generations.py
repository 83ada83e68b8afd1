"""The `generations` metric: what the model says, and its statistics."""

from __future__ import annotations

import subprocess
import sys

import pytest

from unlearn_suite import Example, text_statistics
from unlearn_suite.builtin.metrics import metric_specs
from unlearn_suite.builtin.metrics.generations import Generations, GenerationsConfig
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.evaluate.score import score_entry
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

EXAMPLES = [
    Example("a", prompt="Say something"),
    Example("b", text="Or this", group="g"),
    Example("c", text="last"),
]


@pytest.fixture(scope="module")
def model() -> EvalModel:
    return EvalModel(tiny_model(), tiny_tokenizer())


def test_greedy_text_is_the_models_own(model: EvalModel) -> None:
    rows = list(Generations(GenerationsConfig(max_new_tokens=9, limit=2)).score(model, EXAMPLES, 0))
    told = model.generate(["Say something", "Or this"], max_new_tokens=9, temperature=0)
    assert [r.sample for r in rows] == [
        {"prompt": "Say something", "output": told[0][0]},
        {"prompt": "Or this", "output": told[1][0]},
    ]
    assert rows[0].values["length"] == 9.0 and rows[1].group == "g"


def test_samples_are_pooled_per_prompt_and_follow_the_seed(model: EvalModel) -> None:
    metric = Generations(GenerationsConfig(n=3, temperature=1.0, max_new_tokens=8))
    first, again, other = (list(metric.score(model, EXAMPLES, seed)) for seed in (0, 0, 1))
    assert first == again != other
    texts = first[0].sample["output"]
    assert len(texts) == 3
    assert first[0].values == text_statistics(texts, model.tokens(texts))


def test_all_built_in_specs_load_and_pass_the_checks(model: EvalModel) -> None:
    specs = {spec.name: spec for spec in metric_specs()}
    assert "lm-eval" in specs and "harmonic-mean" in specs
    examples = [Example("q", prompt="The sky is", text="blue", choices=("blue", "red"), answer=0)]
    for name in ("cloze", "multiple-choice", "perplexity", "generations", "rouge"):
        module, _, attribute = specs[name].load.partition(":")
        metric = getattr(sys.modules[module], attribute)(specs[name].config())
        rows = score_entry({"use": f"x/{name}", "name": name}, metric, model, examples, 0, spec=specs[name])
        assert [r.id for r in rows] == ["q"]


def test_registering_metrics_needs_no_torch() -> None:
    code = (
        "import sys, unlearn_suite.builtin.metrics as m; m.metric_specs();"
        "print([n for n in ('torch', 'transformers', 'lm_eval') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
