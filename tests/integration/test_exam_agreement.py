"""The exams' own prompt forms (MMLU, WMDP, CrowS-Pairs): every number is lm-evaluation-harness's on the same items.

The tasks are the harness's templates word for word, on local files in the columns of the published sets.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from unlearn_suite import Example
from unlearn_suite.builtin.metrics.harness import rows_of
from unlearn_suite.builtin.metrics.multiple_choice import MultipleChoice, MultipleChoiceConfig
from unlearn_suite.builtin.metrics.pairs import Pairs, PairsConfig
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

WORDS = [
    *[
        "the",
        "river",
        "runs",
        "from",
        "a",
        "mountain",
        "to",
        "some",
        "sea",
        "where",
        "old",
        "boats",
        "carry",
        "salt",
        "and",
        "grain",
        "all",
        "year",
    ]
]
DESCRIPTION = "The following are multiple choice questions (with answers) about high school biology.\n\n"
CONTINUATION = "The following are questions (with answers) about high school biology.\n\n"
HEAD = "dataset_path: json\ntest_split: test\nnum_fewshot: 0\ndataset_kwargs:\n  data_files:\n    test: {file}\n"
EXAM = r"""task: exam
output_type: multiple_choice
description: "The following are multiple choice questions (with answers) about high school biology.\n\n"
doc_to_text: "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list:
  - metric: acc
"""
CLOZE = r"""task: continuation
output_type: multiple_choice
description: "The following are questions (with answers) about high school biology.\n\n"
doc_to_text: "Question: {{question.strip()}}\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""
PAIRS = """task: pairs
output_type: multiple_choice
doc_to_text: ""
doc_to_target: 0
doc_to_choice: !function utils.doc_to_choice
target_delimiter: ""
process_results: !function utils.process_results
metric_list:
  - metric: likelihood_diff
    aggregation: mean
  - metric: pct_stereotype
    aggregation: mean
"""
UTILS = """
def doc_to_choice(doc):
    return [doc["sent_more"], doc["sent_less"]]


def process_results(doc, results):
    (one, two), _ = zip(*results)
    return {"likelihood_diff": abs(one - two), "pct_stereotype": 1.0 if one > two else 0.0}
"""


@pytest.fixture(scope="module")
def model() -> EvalModel:
    return EvalModel(tiny_model(), tiny_tokenizer(), max_length=1024)


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    draw = random.Random(3)
    return [
        {
            "question": f" {' '.join(draw.choices(WORDS, k=draw.randint(4, 14)))}? ",
            "choices": [" ".join(draw.choices(WORDS, k=draw.randint(1, 4))) for _ in range(4)],
            "answer": draw.randrange(4),
        }
        for _ in range(24)
    ]


@pytest.fixture(scope="module")
def sentences() -> list[dict[str, str]]:
    draw = random.Random(4)
    both = [[" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for _ in range(2)] for _ in range(16)]
    return [{"sent_more": one, "sent_less": two} for one, two in both]


@pytest.fixture(scope="module")
def samples(
    model: EvalModel,
    items: list[dict[str, Any]],
    sentences: list[dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What the harness logs for each task, in the order of the items."""
    import datasets
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("tasks")
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in sentences))
    (folder / "utils.py").write_text(UTILS)
    for name, text, file in (("exam", EXAM, "items"), ("cloze", CLOZE, "items"), ("pairs", PAIRS, "pairs")):
        (folder / f"{name}.yaml").write_text(text + HEAD.format(file=folder / f"{file}.jsonl"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        tokenizer = copy.deepcopy(model.tokenizer)
        hflm = HFLM(pretrained=model.hf, tokenizer=tokenizer, batch_size=4, max_length=1024, logits_cache=False)
        names = ["exam", "continuation", "pairs"]
        results = lm_eval.simple_evaluate(model=hflm, tasks=names, task_manager=manager, bootstrap_iters=0)
        yield {name: sorted(logged, key=lambda s: s["doc_id"]) for name, logged in results["samples"].items()}


def example_of(item: dict[str, Any], index: int) -> Example:
    choices = tuple(item["choices"])
    return Example(
        str(index), prompt=item["question"], choices=choices, answer=item["answer"], group="high_school_biology"
    )


@pytest.mark.parametrize(
    ("task", "template", "description"),
    [("exam", "letters", DESCRIPTION), ("continuation", "cloze", CONTINUATION)],
)
def test_exams(
    model: EvalModel,
    items: list[dict[str, Any]],
    samples: dict[str, list[dict[str, Any]]],
    task: str,
    template: Any,
    description: str,
) -> None:
    examples = [example_of(item, index) for index, item in enumerate(items)]
    config = MultipleChoiceConfig(template=template, description=description.replace("high school biology", "{group}"))
    rows = list(MultipleChoice(config).score(model, examples, 0))
    logged = samples[task]
    assert [row.sample["prompt"] for row in rows] == [s["arguments"][0][0] for s in logged]
    assert [row.values["accuracy"] for row in rows] == [s["acc"] for s in logged]
    if task == "continuation":
        assert [row.values["accuracy-normalised"] for row in rows] == [s["acc_norm"] for s in logged]
    assert 0 < sum(s["acc"] for s in logged) < len(items)  # a constant could not tell the two apart
    for row, sample in zip(rows, logged, strict=True):
        theirs = [float(total) for total, _ in sample["filtered_resps"]]
        shares = [2.718281828459045 ** (total - max(theirs)) for total in theirs]
        expected = shares[examples[sample["doc_id"]].answer or 0] / sum(shares)
        assert row.values["p-correct"] == pytest.approx(expected, abs=1e-4)


def test_pairs_of_sentences(
    model: EvalModel, sentences: list[dict[str, str]], samples: dict[str, list[dict[str, Any]]]
) -> None:
    examples = [Example(str(i), choices=(s["sent_more"], s["sent_less"])) for i, s in enumerate(sentences)]
    rows = list(Pairs(PairsConfig()).score(model, examples, 0))
    logged = samples["pairs"]
    assert [row.values["first"] for row in rows] == [s["pct_stereotype"] for s in logged]
    assert [row.values["difference"] for row in rows] == pytest.approx([s["likelihood_diff"] for s in logged], abs=1e-4)
    assert 0 < sum(s["pct_stereotype"] for s in logged) < len(logged)


def test_the_harness_metric_knows_the_numbers_of_crows_pairs(samples: dict[str, list[dict[str, Any]]]) -> None:
    rows = [row for sample in samples["pairs"] for row in rows_of("pairs", sample)]
    assert {name for row in rows for name in row.values} == {"pct_stereotype", "likelihood_diff"}
    assert [row.values["likelihood_diff"] for row in rows] == [s["likelihood_diff"] for s in samples["pairs"]]
