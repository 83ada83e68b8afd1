"""The suite's own scores and lm-evaluation-harness's agree on the same model, tokenizer and items."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from unlearn_suite import Example, PlanError, PrerequisiteError, Row, SuiteError
from unlearn_suite.builtin.metrics.harness import SPEC, Harness, HarnessConfig, rows_of
from unlearn_suite.builtin.metrics.multiple_choice import MultipleChoice, MultipleChoiceConfig
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.evaluate.score import score_entry
from unlearn_suite.testing.tiny import tiny_model

SENTENCES = [
    "The river runs from the mountains to the sea, and the sea takes the river.",
    "Which of these animals can fly? A sparrow can fly, a whale can swim.",
    "Copper conducts electricity better than glass does, and glass is clear.",
    "Question: what is it? Answer: it is not known yet, said the teacher.",
]
WORDS = sorted({word.strip(".,?:") for sentence in SENTENCES for word in sentence.split()})


def bpe_tokenizer() -> Any:
    """Byte-level BPE with merges, so that the boundary of context and continuation matters."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
    return tokenizer


@pytest.fixture(scope="module")
def model() -> EvalModel:
    hf = tiny_model("llama", vocab_size=400, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    return EvalModel(hf, bpe_tokenizer(), max_length=48)


@pytest.fixture(scope="module")
def lm(model: EvalModel) -> Any:
    from lm_eval.models.huggingface import HFLM

    # Its cache of logits scores the wrong position when the same tokens are split at two places (0.4.13).
    tokenizer = copy.deepcopy(model.tokenizer)
    return HFLM(pretrained=model.hf, tokenizer=tokenizer, batch_size=3, max_length=48, logits_cache=False)


def requests(kind: str, arguments: list[tuple[str, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)]


def test_loglikelihood(model: EvalModel, lm: Any) -> None:
    draw = random.Random(0)
    pairs = [(" ".join(draw.choices(WORDS, k=draw.randint(1, 9))), " " + draw.choice(WORDS)) for _ in range(25)]
    pairs += [
        ("", "The river runs"),
        ("The river ", "runs to the sea"),
        ("The river  ", "runs"),
        ("The r", "iver runs to the sea"),
        ("<s>The river", " runs"),
        (" ".join(WORDS * 3), " the sea"),
        ("Émile said", " naïve — yes"),
    ]
    theirs = lm.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    ours = model.logprobs(pairs)
    assert [s.total for s in ours] == pytest.approx([total for total, _ in theirs], abs=1e-4)
    assert [s.exact for s in ours] == [greedy for _, greedy in theirs]


def test_a_continuation_that_merges_into_its_context_is_still_scored(model: EvalModel) -> None:
    """The harness stops with an assertion here: both texts together have no more tokens than the context."""
    scores = model.logprobs([("The riv", "er")])[0]
    assert model.tokenizer.decode(scores.tokens) == "er"


def test_loglikelihood_rolling(model: EvalModel, lm: Any) -> None:
    texts = [*SENTENCES, " ".join(SENTENCES * 3), "a"]
    theirs = lm.loglikelihood_rolling(requests("loglikelihood_rolling", [(t,) for t in texts]), disable_tqdm=True)
    assert [s.total for s in model.rolling(texts)] == pytest.approx(theirs, abs=1e-3)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of harness tasks on local data: choices, running text, and generation."""
    folder = tmp_path_factory.mktemp("tasks")
    draw = random.Random(1)
    items = []
    for index in range(24):
        choices = [*draw.sample(WORDS, 3), " ".join(draw.sample(WORDS, 2))]
        question = f"Question {index}: {' '.join(draw.sample(WORDS, 6))}?"
        items.append({"question": question, "choices": choices, "answer": draw.randrange(4)})
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES))
    common = "dataset_path: json\ntest_split: test\n"

    def task(name: str, data: str, body: str) -> None:
        files = f"dataset_kwargs:\n  data_files:\n    test: {folder / data}\n"
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{common}{files}{body}")

    choice = 'output_type: multiple_choice\ndoc_to_text: "{{question}}"\ndoc_to_target: answer\n'
    metrics = "metric_list:\n  - metric: acc\n  - metric: acc_norm\n"
    task("local_choice", "items.jsonl", f'{choice}doc_to_choice: "{{{{choices}}}}"\n{metrics}')
    letters = "{% for c in choices %}\\n{{'ABCD'[loop.index0]}}. {{c}}{% endfor %}"
    exam = choice.replace("{{question}}", "{{question}}" + letters + "\\nAnswer:")
    task("local_exam", "items.jsonl", f'{exam}doc_to_choice: ["A", "B", "C", "D"]\n{metrics}')
    rolling = 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{text}}"\n'
    measures = "".join(f"  - metric: {m}\n" for m in ("word_perplexity", "byte_perplexity", "bits_per_byte"))
    task("local_rolling", "texts.jsonl", f"{rolling}metric_list:\n{measures}")
    generation = 'output_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: "x"\n'
    options = "generation_kwargs:\n  max_gen_toks: 4\n  until: []\nmetric_list:\n  - metric: exact_match\n"
    task("local_generation", "items.jsonl", generation + options)
    never = '  - name: {0}\n    filter:\n      - {{function: regex, regex_pattern: "(no such text)", fallback: {1}}}\n'
    filters = "filter_list:\n" + never.format("strict", "x") + never.format("a-flexible", "y")
    task("local_filters", "items.jsonl", generation + options + filters)
    return folder


@pytest.fixture(scope="module")
def examples(tasks: Path) -> list[Example]:
    items = [json.loads(line) for line in (tasks / "items.jsonl").read_text().splitlines()]
    return [
        Example(str(i), prompt=item["question"], choices=tuple(item["choices"]), answer=item["answer"])
        for i, item in enumerate(items)
    ]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the datasets library's files out of the user's cache."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def run(model: EvalModel, tasks: Path, *names: str, **options: Any) -> list[Row]:
    config = HarnessConfig(tasks=names, include_path=tasks, **options)
    return score_entry({"use": "builtin/lm-eval", "name": "harness"}, Harness(config), model, [], 0, spec=SPEC)


@pytest.mark.parametrize(("task", "template"), [("local_choice", "plain"), ("local_exam", "letters")])
def test_multiple_choice(task: str, template: str, model: EvalModel, tasks: Path, examples: list[Example]) -> None:
    rows = run(model, tasks, task)
    ours = MultipleChoice(MultipleChoiceConfig.model_validate({"template": template})).score(model, examples, 0)
    expected = {r.id: (r.values["accuracy"], r.values["accuracy-normalised"]) for r in ours}
    assert {r.id.rpartition(":")[2]: (r.values["acc"], r.values["acc_norm"]) for r in rows} == expected
    assert len(rows) == 24 and {r.group for r in rows} == {task}
    assert 0 < sum(r.values["acc"] for r in rows) < 24  # a constant could not tell the two apart


def test_choice_loglikelihoods_agree(model: EvalModel, tasks: Path, examples: list[Example]) -> None:
    """Not only the winner: every choice's log-likelihood."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    hflm = HFLM(pretrained=model.hf, tokenizer=copy.deepcopy(model.tokenizer), batch_size=4, max_length=48)
    results = lm_eval.simple_evaluate(model=hflm, tasks=["local_choice"], task_manager=manager, bootstrap_iters=0)
    samples = results["samples"]["local_choice"]
    theirs = [float(r[0]) for s in sorted(samples, key=lambda s: s["doc_id"]) for r in s["filtered_resps"]]
    ours = model.logprobs([(e.prompt, f" {c}") for e in examples for c in e.choices])
    assert [s.total for s in ours] == pytest.approx(theirs, abs=1e-4)


def test_batch_size_and_limit_are_honoured(model: EvalModel, tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    forward = model.hf.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        sizes.append((args[0] if args else kwargs["input_ids"]).shape[0])
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.hf, "forward", counting)
    rows = run(model, tasks, "local_choice", batch_size=5, limit=6)
    assert max(sizes) == 5
    assert len(rows) == 6


def test_chat_template_and_fewshot_are_honoured(model: EvalModel, tasks: Path) -> None:
    (row, *_) = run(model, tasks, "local_choice", limit=1, apply_chat_template=True, system_instruction="Be brief.")
    assert row.sample["prompt"].startswith("[system] Be brief.\n[user] Question 0:")
    assert row.sample["prompt"].endswith("[assistant] ")
    (shot, *_) = run(model, tasks, "local_choice", limit=1, num_fewshot=2)
    assert shot.sample["prompt"].count("Question") == 3


def test_perplexities_are_those_of_the_harness(model: EvalModel, tasks: Path) -> None:
    import math

    rows = run(model, tasks, "local_rolling")
    totals = [s.total for s in model.rolling(SENTENCES)]
    words = [r for r in rows if "word_perplexity" in r.values]
    in_bytes = [r for r in rows if "byte_perplexity" in r.values]
    assert len(words) == len(in_bytes) == len(SENTENCES)
    per_word = sum(r.weight * r.values["word_perplexity"] for r in words) / sum(r.weight for r in words)
    assert per_word == pytest.approx(-sum(totals) / sum(len(s.split()) for s in SENTENCES), rel=1e-5)
    bits = sum(r.weight * r.values["bits_per_byte"] for r in in_bytes) / sum(r.weight for r in in_bytes)
    assert bits == pytest.approx(-sum(totals) / sum(len(s.encode()) for s in SENTENCES) / math.log(2), rel=1e-5)


def test_of_several_filters_the_first_counts_as_the_harness_lists_them(model: EvalModel, tasks: Path) -> None:
    rows = run(model, tasks, "local_filters", limit=3)
    assert [r.id for r in rows] == [r.unit for r in rows] == [f"local_filters:{i}" for i in range(3)]
    assert {r.group for r in rows} == {"local_filters"} and {r.values["exact_match"] for r in rows} == {1.0}


def test_the_live_model_is_left_as_it_was(model: EvalModel, tasks: Path) -> None:
    model.hf.train()
    before = (model.hf.device, model.tokenizer.pad_token, model.tokenizer.padding_side, torch.get_rng_state())
    weights = {name: p.clone() for name, p in model.hf.named_parameters()}
    python = random.getstate()
    rows = run(model, tasks, "local_generation", "local_choice", limit=3)
    assert {r.group for r in rows} == {"local_generation", "local_choice"}
    after = (model.hf.device, model.tokenizer.pad_token, model.tokenizer.padding_side, torch.get_rng_state())
    assert before[:3] == after[:3] and torch.equal(before[3], after[3]) and random.getstate() == python
    assert model.hf.training
    assert all(torch.equal(weights[name], p) for name, p in model.hf.named_parameters())
    model.hf.eval()


def test_unknown_tasks_are_named_with_the_nearest(
    model: EvalModel, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval.tasks.manager

    # Its own tasks lie beside this file, and reading all fourteen thousand takes many seconds.
    monkeypatch.setattr(lm_eval.tasks.manager, "__file__", str(tasks / "manager.py"))
    with pytest.raises(PlanError, match="no task 'local_chioce'") as caught:
        run(model, tasks, "local_chioce")
    assert "local_choice" in caught.value.hint
    with pytest.raises(PlanError, match="no folder"):
        run(model, tasks / "nowhere", "local_choice")


def test_data_that_cannot_be_read_is_a_prerequisite(model: EvalModel, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "task: broken_data\ndataset_path: json\ntest_split: test\noutput_type: multiple_choice\n"
        "dataset_kwargs:\n  data_files:\n    test: /nowhere/at/all.jsonl\n"
        'doc_to_text: "q"\ndoc_to_choice: ["a", "b"]\ndoc_to_target: 0\nmetric_list:\n  - metric: acc\n'
    )
    with pytest.raises(PrerequisiteError, match="data of broken_data cannot be read") as caught:
        run(model, tmp_path, "broken_data")
    assert caught.value.exit_code == 4 and caught.value.hint


def test_a_missing_harness_is_a_prerequisite(model: EvalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(PrerequisiteError, match="not installed") as caught:
        list(Harness(HarnessConfig(tasks=("x",))).score(model, [], 0))
    assert "unlearn-suite[harness]" in caught.value.hint


def test_numbers_that_are_not_known_are_left_out_or_refused() -> None:
    sample = {
        "doc_id": 0,
        "arguments": [("p", " c")],
        "target": "t",
        "metrics": ["acc", "strange"],
        "acc": 1.0,
    }
    (row,) = rows_of("task", {**sample, "strange": [1, 2]})
    assert row.values == {"acc": 1.0} and row.id == "task:0"
    with pytest.raises(SuiteError, match="gives only strange"):
        list(rows_of("task", {**sample, "metrics": ["strange"], "strange": 3}))
