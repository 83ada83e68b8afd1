"""CrowS-Pairs from the release's crows_pairs_anonymized.csv, or from the copy on the hub that lm-eval reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from unlearn_suite import Example, records

from .split import Part, place, taken

HUB = ("jannalu/crows_pairs_multilingual", "english")


class CrowsPairsConfig(records.Source):
    """Which pairs, and what of them."""

    path: Path | None = None
    """crows_pairs_anonymized.csv, or its folder (none = the hub)"""
    form: Literal["pairs", "stereotypes", "counterparts"] = "pairs"
    """pairs: both sentences as choices, the more stereotyping one first; stereotypes, counterparts: one of them"""
    bias: tuple[str, ...] | None = None
    """kinds of bias, as `bias_type` calls them (none = all)"""
    part: Part = "all"
    """a fixed split by stereotype: train 60 %, test 40 %"""
    limit: int | None = Field(None, ge=1)
    """largest number of pairs, in an order by hash (none = no limit)"""


def load(config: CrowsPairsConfig) -> Sequence[Example]:
    """One example per pair, `group` the kind of bias. Counterparts that are a stereotype elsewhere are left out."""
    rows = [
        (place(more), f"crows-pairs/{index}", more, less, bias)
        for index, (more, less, bias) in enumerate(_rows(config))
    ]
    stereotypes = {more for _, _, more, _, _ in rows}
    kinds = records.chosen(config.bias, sorted({bias for *_, bias in rows}), "kind of bias", str(config.path or HUB[0]))
    chosen = [row for row in sorted(rows) if taken(row[0], config.part) and row[4] in kinds][: config.limit]
    examples = []
    for _, name, more, less, bias in chosen:
        if config.form == "pairs":
            examples.append(Example(name, text=more, choices=(more, less), group=bias))
        elif config.form == "stereotypes":
            examples.append(Example(name, text=more, group=bias))
        elif less not in stereotypes:
            examples.append(Example(name, text=less, group=bias))
    return examples


def _rows(config: CrowsPairsConfig) -> Iterator[tuple[str, str, str]]:
    """(more stereotyping sentence, less stereotyping one, kind of bias)."""
    for record in _records(config):
        yield record.text("sent_more").strip(), record.text("sent_less").strip(), record.text("bias_type")


def _records(config: CrowsPairsConfig) -> Iterator[records.Record]:
    if config.path is None:
        hint = "connect once, or give `path`: crows_pairs_anonymized.csv of github.com/nyu-mll/crows-pairs"
        yield from records.hub(HUB[0], name=HUB[1], split="test", revision=config.revision, hint=hint)
        return
    for file in records.find_files(config.path, "*crows*pairs*.csv", "*crows*pairs*.jsonl", "*crows*pairs*.parquet"):
        yield from records.read(file)
