"""The sets of MUSE, from the hub or from a folder in the layout of the release.

A folder holds `knowmem/forget_qa.json`, `verbmem/forget.json`, `privleak/holdout.json`, `raw/forget.txt`,
`scal/forget_2.txt` ... for one corpus, or these below `news/` and `books/`. The flat names of earlier copies
(`bbc_knowmem_forget_qa.json`, `hp_...`) are found too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from unlearn_suite import Example, records

from ..memorisation.passages import cut_words

Corpus = Literal["news", "books"]
Part = Literal[
    "forget", "retain", "held-out", "verbatim", "forget-qa", "retain-qa", "member", "non-member",
    "scal-1", "scal-2", "scal-3", "scal-4", "sust-1", "sust-2", "sust-3", "sust-4",
]  # fmt: skip

HUB = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}
FLAT = {"news": "bbc", "books": "hp"}
PLACES = {
    "forget": ("raw", "forget"),
    "retain": ("raw", "retain1"),
    "held-out": ("raw", "holdout"),
    "verbatim": ("verbmem", "forget"),
    "forget-qa": ("knowmem", "forget_qa"),
    "retain-qa": ("knowmem", "retain_qa"),
    "member": ("privleak", "forget"),
    "non-member": ("privleak", "holdout"),
    **{f"{kind}-{i}": (kind, f"forget_{i}") for kind in ("scal", "sust") for i in range(1, 5)},
}
"""set -> configuration and split of the release"""


class MuseConfig(records.Source):
    """One set of MUSE."""

    corpus: Corpus = "news"
    """BBC articles, or the Harry Potter books"""
    set: Part = "forget"
    """forget, retain, held-out: texts, cut into passages; verbatim: beginnings with their continuations; forget-qa,
    retain-qa: questions; member, non-member: what `mia` compares; scal-N: N of the four growing sets to forget, sust-N:
    the N-th request of four"""
    path: Path | None = None
    """folder of the release (none = the hub)"""
    words: int = Field(200, ge=8)
    """words of a passage, where texts are cut"""
    shots: bool = True
    """questions come after the worked examples of the release (`..._icl`), as it asks them"""
    limit: int | None = Field(None, ge=1)
    """largest number of examples, from the top (none = no limit)"""


def load(config: MuseConfig) -> Sequence[Example]:
    """The examples of a set in the order of the release. Raises `PlanError` for a folder or record that is not its.

    The passages of an article are one unit. Those of a book and of a .txt file, which are running text, are units by
    themselves, so that some can be kept apart from the others.
    """
    examples = []
    for example in _examples(config):
        examples.append(example)
        if len(examples) == config.limit:
            break
    return examples


def _examples(config: MuseConfig) -> Iterator[Example]:
    kind, split = PLACES[config.set]
    stem = f"{config.corpus}/{config.set}"
    if config.set in ("forget-qa", "retain-qa"):
        before = "".join(_asked(r) + f" {r.text('answer')}\n\n" for r in _shots(config, kind, split))
        for number, record in enumerate(_records(config, kind, split)):
            answer = record.text("answer")
            yield Example(f"{stem}/{number}", prompt=before + _asked(record), text=f" {answer}", group=config.set)
        return
    for number, record in enumerate(_records(config, kind, split)):
        if config.set == "verbatim":
            text = record.text("gt")
            yield Example(f"{stem}/{number}", prompt=record.text("prompt"), text=text, group=config.set)
        elif kind == "privleak":
            yield Example(f"{stem}/{number}", text=record.text("text"), group=config.set)
        else:
            unit = "" if config.corpus == "books" or _is_text(record.place) else f"{stem}/{number}"
            for piece, text in enumerate(cut_words(record.text("text"), config.words)):
                yield Example(f"{stem}/{number}.{piece}", text=text, group=config.set, unit=unit)


def _is_text(name: str) -> bool:
    """Whether a file, or the place of a record, is one running text."""
    return name.removesuffix(".gz").endswith(".txt")


def _asked(record: records.Record) -> str:
    return f"Question: {record.text('question')}\nAnswer:"


def _shots(config: MuseConfig, kind: str, split: str) -> Iterator[records.Record]:
    return _records(config, kind, f"{split}_icl") if config.shots else iter(())


def _records(config: MuseConfig, kind: str, split: str) -> Iterator[records.Record]:
    if config.path is None:
        hint = f"connect once, or give `path`: the files of huggingface.co/datasets/{HUB[config.corpus]}"
        yield from records.hub(HUB[config.corpus], name=kind, split=split, revision=config.revision, hint=hint)
        return
    names = [f"{kind}/{split}.*", f"{kind}/{split}-*.parquet"]
    flat = f"{FLAT[config.corpus]}_{kind}_{split.replace('retain_', 'retain2_')}.json"
    found = records.find_files(config.path, *names, *(f"{config.corpus}/{name}" for name in names), flat)
    # the hub has older files of other types beside the tables that are read there
    tables = [file for file in found if file.suffix == ".parquet"]
    for file in tables or found:
        if _is_text(str(file)):
            yield records.Record(str(file), {"text": records.read_text(file)})
        else:
            yield from records.read(file)
