"""Fine-tuning: its loss in float64, the end of answers, and a role that an option names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unlearn_suite import Config, Example, ObjectiveSpec, PlanError
from unlearn_suite.builtin.finetuning import SPEC, SftConfig
from unlearn_suite.builtin.sft import Sft
from unlearn_suite.engine.batch import encode
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.specs import Train
from unlearn_suite.testing.conformance.bench import TinyServices
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

FACTS = [
    Example("a", prompt="Q: who?\nA:", text=" Ann"),
    Example("b", prompt="Q: where?\nA:", text=" in Rome"),
    Example("c", prompt="Q: when?\nA:", text=" at noon"),
]


def job(folder: Path, model: object, rows: list[dict[str, float]], config: SftConfig, **train: object) -> StageJob:
    return StageJob(
        index=0,
        objective=Sft(config),
        train=Train(**{**SPEC.train, "batch": 3, "length": 40, **train}),
        required_roles=SPEC.roles_for(config),
        examples={"facts": FACTS, "other": FACTS[:1]},
        seed=0,
        artifacts=folder / "artifacts",
        checkpoints=folder / "checkpoints",
        services=TinyServices(model, lambda: None),
        on_step=lambda step, scalars: rows.append(scalars),
    )


def test_the_loss_is_the_mean_over_answer_tokens_and_their_end(tmp_path: Path) -> None:
    model, tokenizer, rows = tiny_model(), tiny_tokenizer(), []
    double = tiny_model().double()
    run_stage(model, tokenizer, job(tmp_path, model, rows, SftConfig(role="facts"), steps=1))
    total, count = torch.zeros((), dtype=torch.float64), 0
    for example in FACTS:
        prompt, answer = tokenizer(example.prompt)["input_ids"], [*tokenizer(example.text)["input_ids"], 2]
        logits = double(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        total -= logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum().detach()
        count += len(answer)
    assert rows[0]["nll"] == pytest.approx(float(total / count), abs=1e-5)


def test_a_model_learns_the_answers_and_where_they_end(tmp_path: Path) -> None:
    model, rows = tiny_model(), []
    run_stage(model, tiny_tokenizer(), job(tmp_path, model, rows, SftConfig(role="facts"), steps=80, lr=1e-2))
    told = EvalModel(model, tiny_tokenizer()).generate([e.prompt for e in FACTS], max_new_tokens=20, temperature=0)
    assert [text for (text,) in told] == [example.text for example in FACTS]
    assert rows[-1]["nll"] < 0.05


def test_the_end_token_follows_whole_texts_only_and_only_once() -> None:
    tokenizer = tiny_tokenizer()
    ends = [encode(tokenizer, FACTS, n, end=True)[0].input_ids[-1] == 2 for n in (6, 7, 40)]
    assert ends == [False, False, True]
    assert encode(tokenizer, [replace(FACTS[0], text=" Ann<eos>")], 40, end=True)[0].input_ids.count(2) == 1
    assert 2 not in encode(tokenizer, FACTS, 40)[0].input_ids
    assert encode(tokenizer, [Example("p", prompt="only a prompt")], 40, end=True)[0].input_ids[-1] != 2
    tokenizer.eos_token = None
    with pytest.raises(PlanError, match="no end token"):
        encode(tokenizer, FACTS, 40, end=True)


def test_only_the_tensors_that_are_named_are_trained(tmp_path: Path) -> None:
    model, rows = tiny_model(), []
    config = SftConfig(role="facts", tensors=r".*layers\.2\..*weight")
    result = run_stage(model, tiny_tokenizer(), job(tmp_path, model, rows, config, steps=1))
    assert result.original and all("layers.2." in name for name in result.original)


def test_a_role_may_be_an_option() -> None:
    assert SPEC.roles_for(SftConfig(role="facts")) == ("facts",) and SPEC.roles_for(SftConfig()) == ("start",)
    with pytest.raises(ValueError, match=r"'\{rule\}' of 'x' is none of its options"):
        ObjectiveSpec("x", "", "a.b:C", Config, roles=("{rule}",))
