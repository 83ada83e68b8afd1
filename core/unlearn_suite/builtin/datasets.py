"""The general datasets as the host registers them: `jsonl`, `text` and `hf`."""

from __future__ import annotations

from ..specs import DatasetSpec
from .hub_dataset import HubConfig
from .jsonl import JsonlConfig
from .text_file import TextConfig

_HERE = "unlearn_suite.builtin"


def specs() -> list[DatasetSpec]:
    """The specs, in the order in which they are listed."""
    return [
        DatasetSpec(
            name="jsonl",
            summary="A local file of JSON lines (.jsonl, .jsonl.gz), its columns mapped to examples",
            load=f"{_HERE}.jsonl:load",
            fingerprint=f"{_HERE}.jsonl:fingerprint",
            config=JsonlConfig,
        ),
        DatasetSpec(
            name="text",
            summary="A local plain-text file (.txt, .txt.gz), cut into paragraphs or lines",
            load=f"{_HERE}.text_file:load",
            fingerprint=f"{_HERE}.text_file:fingerprint",
            config=TextConfig,
        ),
        DatasetSpec(
            name="hf",
            summary="Anything that `datasets.load_dataset` reads: the hub, a local folder, local files",
            load=f"{_HERE}.hub_dataset:load",
            fingerprint=f"{_HERE}.hub_dataset:fingerprint",
            config=HubConfig,
            extras=("hub",),
        ),
    ]
