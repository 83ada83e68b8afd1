"""Published prompts and pairs: RealToxicityPrompts, ParaDetox and ToxiGen."""

from __future__ import annotations

from unlearn_suite import DatasetSpec, ProblemSpec

from .paradetox import ParadetoxConfig
from .real_toxicity_prompts import PromptsConfig
from .toxigen import ToxigenConfig

_HERE = "unlearn_suite_toxicity.published"

DATASETS = (
    DatasetSpec(
        name="realtoxicityprompts",
        summary="RealToxicityPrompts: halves of sentences from the web, prompt and continuation scored by Perspective",
        load=f"{_HERE}.real_toxicity_prompts:load",
        config=PromptsConfig,
        licence="Apache-2.0",
        source="https://huggingface.co/datasets/allenai/real-toxicity-prompts",
        size="about 99,000 prompts with continuations",
    ),
    DatasetSpec(
        name="paradetox",
        summary="ParaDetox: toxic sentences with neutral rewrites by people",
        load=f"{_HERE}.paradetox:load",
        config=ParadetoxConfig,
        licence="CC0-1.0",
        source="https://huggingface.co/datasets/s-nlp/paradetox",
        size="about 12,000 toxic sentences, one to three rewrites each",
    ),
    DatasetSpec(
        name="toxigen",
        summary="ToxiGen: prompts about thirteen groups of people, and statements that people judged",
        load=f"{_HERE}.toxigen:load",
        config=ToxigenConfig,
        licence="see its page",
        source="https://huggingface.co/datasets/skg/toxigen-data",
        size="274,186 statements by a machine; 940 judged by people in the test split",
    ),
)

PROBLEMS = (
    ProblemSpec(
        name="toxicity-rtp",
        summary="Stop continuing web text with toxic language (RealToxicityPrompts); keep fluency and plain English",
        fragment="unlearn_suite_toxicity:problems/toxicity-rtp.yaml",
        paper="arXiv:2009.11462",
    ),
    ProblemSpec(
        name="toxicity-pairs",
        summary="Forget how a toxic sentence goes on, keep its neutral rewrites (ParaDetox-like pairs)",
        fragment="unlearn_suite_toxicity:problems/toxicity-pairs.yaml",
        paper="https://aclanthology.org/2022.acl-long.469",
    ),
)
