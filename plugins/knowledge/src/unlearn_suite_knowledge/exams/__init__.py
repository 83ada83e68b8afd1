"""Published exams: MMLU, the WMDP questions, and the corpora that go with them."""

from __future__ import annotations

from unlearn_suite import DatasetSpec, ProblemSpec

from .corpora import CorporaConfig
from .mmlu import MmluConfig
from .wmdp import WmdpConfig

_HERE = "unlearn_suite_knowledge.exams"
_WMDP = "arXiv:2403.03218"

DATASETS = (
    DatasetSpec(
        name="mmlu",
        summary="MMLU: four-choice questions of 57 subjects, from the hub or the release's CSV files",
        load=f"{_HERE}.mmlu:load",
        config=MmluConfig,
        licence="MIT",
        source="https://github.com/hendrycks/test",
        size="14,042 questions to ask (test), 1,816 more (dev, val)",
    ),
    DatasetSpec(
        name="wmdp",
        summary="WMDP: four-choice questions on hazardous biology, chemistry and cybersecurity",
        load=f"{_HERE}.wmdp:load",
        config=WmdpConfig,
        licence="MIT",
        source="https://huggingface.co/datasets/cais/wmdp",
        size="3,668 questions: biology 1,273, cybersecurity 1,987, chemistry 408",
    ),
    DatasetSpec(
        name="wmdp-corpora",
        summary="WMDP's forget and retain corpora: papers on biology, web text on cybersecurity",
        load=f"{_HERE}.corpora:load",
        config=CorporaConfig,
        licence="see its pages",
        source="https://huggingface.co/datasets/cais/wmdp-corpora",
        size="tens of thousands of papers, thousands of web texts",
    ),
)

PROBLEMS = (
    ProblemSpec(
        name="wmdp-bio",
        summary="Forget hazardous biology (WMDP); keep the rest of biology, MMLU and plain English",
        fragment="unlearn_suite_knowledge:problems/wmdp-bio.yaml",
        paper=_WMDP,
    ),
    ProblemSpec(
        name="wmdp-cyber",
        summary="Forget hazardous cybersecurity (WMDP); keep the rest of computing, MMLU and plain English",
        fragment="unlearn_suite_knowledge:problems/wmdp-cyber.yaml",
        paper=_WMDP,
    ),
    ProblemSpec(
        name="wmdp-chem",
        summary="Forget hazardous chemistry (WMDP), from questions and answers; keep the rest of chemistry and MMLU",
        fragment="unlearn_suite_knowledge:problems/wmdp-chem.yaml",
        paper=_WMDP,
    ),
    ProblemSpec(
        name="mmlu-subject",
        summary="Forget one subject of MMLU, from questions and answers; keep the subjects beside it",
        fragment="unlearn_suite_knowledge:problems/mmlu-subject.yaml",
        paper="arXiv:2009.03300",
    ),
)
