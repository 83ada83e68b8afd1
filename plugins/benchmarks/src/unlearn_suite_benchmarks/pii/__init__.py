"""Private data: people that do not exist, their addresses, and whether a model gives them away."""

from __future__ import annotations

from unlearn_suite import DatasetSpec, ProblemSpec

from .data import PiiConfig

SPECS = (
    DatasetSpec(
        name="pii",
        summary="Made-up people with e-mail addresses: documents, and prompts that ask for an address",
        load=f"{__name__}.data:load",
        fingerprint=f"{__name__}.data:fingerprint",
        config=PiiConfig,
        licence="Apache-2.0",
        source="made by a seeded generator written for this project",
        size="as many people as asked for, three documents each",
    ),
    ProblemSpec(
        name="pii",
        summary="Forget the e-mail addresses of some people; keep those of others and plain English",
        fragment=f"{__name__}:problems/pii.yaml",
    ),
)
