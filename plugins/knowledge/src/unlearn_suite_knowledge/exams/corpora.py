"""WMDP's forget and retain corpora (arXiv:2403.03218) from local files, or from the hub.

Every line is a JSON object with `text`, for biology and cybersecurity alike. Public code differs there: RMU's own
reads `text` for biology but trains on the raw JSON lines of cybersecurity, OpenUnlearning trains on raw lines of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from unlearn_suite import Example, records

from .wmdp import files_of

Corpus = Literal["bio-forget", "bio-retain", "cyber-forget", "cyber-retain"]
GATED = "https://huggingface.co/datasets/cais/wmdp-bio-forget-corpus"
_HUB = {
    "bio-forget": ("cais/wmdp-bio-forget-corpus", None),
    "bio-retain": ("cais/wmdp-corpora", "bio-retain-corpus"),
    "cyber-forget": ("cais/wmdp-corpora", "cyber-forget-corpus"),
    "cyber-retain": ("cais/wmdp-corpora", "cyber-retain-corpus"),
}
_OLD_NAMES = {"bio-forget": ("*bio?remove*",)}
"""the first release called it bio_remove_dataset.jsonl"""


class CorporaConfig(records.Source):
    """Which corpus of WMDP. The one of hazardous biology is gated: ask for it at its page on the hub."""

    corpus: Corpus
    """bio-forget, bio-retain (papers), cyber-forget, cyber-retain (web text)"""
    path: Path | None = None
    """file of this corpus, or folder with files or folders named like it, such as bio-forget-corpus.jsonl (none = the
    hub; a gated corpus needs HF_TOKEN)"""
    min_length: int = Field(50, ge=1)
    """characters below which a text is left out (as in RMU's code)"""
    limit: int | None = Field(None, ge=1)
    """largest number of texts, from the top (none = no limit)"""


def load(config: CorporaConfig) -> Sequence[Example]:
    """One example per text, in the order of the files."""
    examples: list[Example] = []
    for index, record in enumerate(_rows(config)):
        if len(examples) == config.limit:
            break
        text = record.get("text")
        if not isinstance(text, str):
            raise record.fault(f"`text` should be text and is {text!r}")
        if len(text) >= config.min_length:
            examples.append(Example(f"{config.corpus}/{index}", text=text, group=config.corpus))
    return examples


def _rows(config: CorporaConfig) -> Iterator[records.Record]:
    if config.path is not None:
        field, role = config.corpus.split("-")
        patterns = (f"*{field}?{role}*", *_OLD_NAMES.get(config.corpus, ()))
        for file in files_of(config.path, patterns):
            yield from records.read(file)
        return
    repo, name = _HUB[config.corpus]
    hint = "connect once, or give the folder with the files of cais/wmdp-corpora (`path`; `corpora` of a problem)"
    if config.corpus == "bio-forget":
        hint = f"it is gated: ask at {GATED}, then set HF_TOKEN, or give its folder (`path`; `corpora` of a problem)"
    yield from records.hub(repo, name=name, revision=config.revision, hint=hint)
