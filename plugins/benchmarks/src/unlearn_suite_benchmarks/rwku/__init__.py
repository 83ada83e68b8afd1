"""RWKU (arXiv:2406.10890): forget real people, asked at three levels, and keep what stands beside them."""

from __future__ import annotations

from unlearn_suite import DatasetSpec, ProblemSpec

from .data import RwkuConfig

SPECS = (
    DatasetSpec(
        name="rwku",
        summary="RWKU: probes about 200 real people at three levels, their neighbours, and passages to forget",
        load="unlearn_suite_benchmarks.rwku.data:load",
        config=RwkuConfig,
        licence="CC-BY-4.0",
        source="https://huggingface.co/datasets/jinzhuoran/RWKU",
        size="200 people, 13,131 probes of what is to be forgotten",
    ),
    ProblemSpec(
        name="rwku",
        summary="Forget one or more real people (RWKU); keep their neighbours and plain English",
        fragment="unlearn_suite_benchmarks.rwku:problems/rwku.yaml",
        paper="arXiv:2406.10890",
    ),
)
