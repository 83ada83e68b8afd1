"""The sets of TOFU, from the hub or from a folder with the files of the release."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from unlearn_suite import Example, PlanError, records

from .config import SLOT, TofuConfig

HUB = "locuslab/TOFU"


def load(config: TofuConfig) -> Sequence[Example]:
    """The examples of a set in the order of the release, named `split/number` from 0.

    In a `..._perturbed` set `text` is the answer and choice 0 its paraphrase (the answer itself, where there is none).
    Raises `PlanError` for a folder or record that is not the release's.
    """
    found = list(enumerate(islice(_records(config), config.limit)))
    return [_example(record, number, config) for number, record in _part(found, config.part)]


def _part(found: list[tuple[int, records.Record]], part: str) -> list[tuple[int, records.Record]]:
    """By rank of a hash of the question, which is the same one in a set and in its perturbed one."""
    if part == "all":
        return found
    order = sorted(found, key=lambda row: (records.share("tofu 1", row[1].text("question")), row[0]))
    attacked = {number for number, _ in order[: len(order) // 2]}
    return [row for row in found if (row[0] in attacked) == (part == "attack")]


def _records(config: TofuConfig) -> Iterator[records.Record]:
    if config.path is not None:
        for file in records.find_files(config.path, f"{config.split}.json", f"{config.split}.jsonl")[:1]:
            yield from records.lines(file) if config.split == "idontknow" else records.read(file)
    elif config.split == "idontknow":
        raise PlanError(
            "the hub has no refusals of TOFU",
            code="data-file",
            where=HUB,
            hint="give `path`, a folder with idontknow.jsonl of github.com/locuslab/tofu",
        )
    else:
        hint = f"connect once, or give `path`: the files of huggingface.co/datasets/{HUB}"
        yield from records.hub(HUB, name=config.split, revision=config.revision, hint=hint)


def _example(record: records.Record, number: int, config: TofuConfig) -> Example:
    name = f"{config.split}/{number}"
    if config.split == "idontknow":
        return Example(name, text=record.text("text"), group=config.group)
    prompt, answer = config.template.replace(SLOT, record.text("question")), record.text("answer")
    if not config.split.endswith("_perturbed"):
        return Example(name, prompt=prompt, text=f" {answer}", group=config.group)
    right = record.text("paraphrased_answer") if "paraphrased_answer" in record else answer
    choices = (right, *_wrong(record))
    return Example(
        name, prompt=prompt, text=f" {answer}", choices=tuple(f" {c}" for c in choices), answer=0, group=config.group
    )


def _wrong(record: records.Record) -> list[str]:
    wrong = record.get("perturbed_answer")
    if isinstance(wrong, str):  # the release has a bare text where there is one wrong answer
        wrong = [wrong]
    if not isinstance(wrong, list) or not wrong or not all(isinstance(w, str) and w.strip() for w in wrong):
        raise record.fault("'perturbed_answer' should be a list of texts")
    return list(wrong)
