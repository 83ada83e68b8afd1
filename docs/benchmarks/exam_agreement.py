"""MMLU and CrowS-Pairs by the suite and by lm-evaluation-harness: the same model, the same items, number by number.

    python docs/benchmarks/exam_agreement.py MODEL --mmlu FOLDER --subject virology --crows-pairs FILE --limit 200

The harness reads its own templates (`mmlu`, `mmlu_continuation`, `crows_pairs`) word for word on local files of the
same items. Printed are the means of both, and the largest difference of an item.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_suite import Example
from unlearn_suite.builtin.metrics.multiple_choice import MultipleChoice, MultipleChoiceConfig
from unlearn_suite.builtin.metrics.pairs import Pairs, PairsConfig
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite_benchmarks.stereotypes import crows_pairs
from unlearn_suite_knowledge.exams import mmlu

ABOUT = "The following are {what} (with answers) about {{group}}.\n\n"
HEAD = "dataset_path: json\ntest_split: test\nnum_fewshot: 0\ndataset_kwargs: {{data_files: {{test: {file}}}}}\n"
CHOICE = "output_type: multiple_choice\ndescription: {description}\n"
LINES = r"\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
LETTERS = f"""doc_to_text: "{{{{question.strip()}}}}{LINES}"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
CONTINUATION = r"""doc_to_text: "Question: {{question.strip()}}\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
SENTENCES = """output_type: multiple_choice
doc_to_text: ""
doc_to_target: 0
doc_to_choice: "{{[sent_more, sent_less]}}"
target_delimiter: ""
process_results: !function utils.process_results
metric_list:
  - {metric: likelihood_diff, aggregation: mean, higher_is_better: false}
  - {metric: pct_stereotype, aggregation: mean, higher_is_better: false}
"""
UTILS = """
def process_results(doc, results):
    (one, two), _ = zip(*results)
    return {"likelihood_diff": abs(one - two), "pct_stereotype": 1.0 if one > two else 0.0}
"""


def harness(model: EvalModel, folder: Path, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """What the harness logs for each document, in their order."""
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    lm = HFLM(pretrained=model.hf, tokenizer=model.tokenizer, batch_size=8, logits_cache=False)
    results = lm_eval.simple_evaluate(model=lm, tasks=list(names), task_manager=manager, bootstrap_iters=0)
    return {name: sorted(rows, key=lambda row: row["doc_id"]) for name, rows in results["samples"].items()}


def write(folder: Path, questions: Sequence[Example], pairs: Sequence[Example], subject: str) -> list[str]:
    """Files and tasks for the harness; the tasks' names."""
    rows = [{"question": e.prompt, "choices": list(e.choices), "answer": e.answer} for e in questions]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = [{"sent_more": e.choices[0], "sent_less": e.choices[1]} for e in pairs]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in both))
    (folder / "utils.py").write_text(UTILS)
    named = subject.replace("_", " ")
    tasks = {
        "letters": (described("multiple choice questions", named) + LETTERS, "questions"),
        "continuation": (described("questions", named) + CONTINUATION, "questions"),
        "sentences": (SENTENCES, "pairs"),
    }
    for name, (text, file) in tasks.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}\n" + HEAD.format(file=folder / f"{file}.jsonl") + text)
    return list(tasks)


def described(what: str, subject: str) -> str:
    return CHOICE.format(description=json.dumps(ABOUT.format(what=what).replace("{group}", subject)))


def compare(title: str, ours: Sequence[float], theirs: Sequence[float]) -> None:
    gap = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    print(f"| {title} | {len(ours)} | {sum(ours) / len(ours):.6f} | {sum(theirs) / len(theirs):.6f} | {gap:.1e} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--mmlu", type=Path, required=True)
    parser.add_argument("--subject", default="virology")
    parser.add_argument("--crows-pairs", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=200)
    told = parser.parse_args()
    model = EvalModel(AutoModelForCausalLM.from_pretrained(told.model), AutoTokenizer.from_pretrained(told.model))
    questions = mmlu.load(mmlu.MmluConfig(path=told.mmlu, subjects=(told.subject,), limit=told.limit))
    pairs = crows_pairs.load(crows_pairs.CrowsPairsConfig(path=told.crows_pairs, limit=told.limit))
    with tempfile.TemporaryDirectory() as folder:
        logged = harness(model, Path(folder), write(Path(folder), questions, pairs, told.subject))
    print("| number | items | suite | lm-eval | largest difference |\n| --- | ---: | ---: | ---: | ---: |")
    for task, template, what in (
        ("letters", "letters", "multiple choice questions"),
        ("continuation", "cloze", "questions"),
    ):
        config = MultipleChoiceConfig.model_validate({"template": template, "description": ABOUT.format(what=what)})
        rows = list(MultipleChoice(config).score(model, questions, 0))
        compare(f"{task}: acc", [r.values["accuracy"] for r in rows], [s["acc"] for s in logged[task]])
        if task == "continuation":
            ours = [r.values["accuracy-normalised"] for r in rows]
            compare(f"{task}: acc_norm", ours, [s["acc_norm"] for s in logged[task]])
    rows = list(Pairs(PairsConfig()).score(model, pairs, 0))
    both = logged["sentences"]
    compare("crows_pairs: pct_stereotype", [r.values["first"] for r in rows], [s["pct_stereotype"] for s in both])
    compare(
        "crows_pairs: likelihood_diff", [r.values["difference"] for r in rows], [s["likelihood_diff"] for s in both]
    )


if __name__ == "__main__":
    main()
