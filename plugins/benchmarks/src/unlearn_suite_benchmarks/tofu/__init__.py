"""TOFU (arXiv:2401.06121): forget some of 200 made-up authors that a model was fine-tuned on."""

from __future__ import annotations

from unlearn_suite import DatasetSpec, MetricSpec, ProblemSpec, ValueSpec

from ..reliability import studied
from .config import ProbabilityConfig, TofuConfig, TruthRatioConfig

PAPER = "arXiv:2401.06121"


def _problem(part: str, authors: int) -> ProblemSpec:
    return ProblemSpec(
        name=f"tofu-{part}",
        summary=f"Forget {authors} of 200 made-up authors; keep the others, real authors and facts of the world",
        fragment=f"{__name__}:problems/tofu-{part}.yaml",
        paper=PAPER,
    )


SPECS = (
    DatasetSpec(
        name="tofu",
        summary="TOFU: questions about made-up authors, real authors and the world, from the hub or a folder",
        load=f"{__name__}.data:load",
        config=TofuConfig,
        licence="MIT",
        source="https://huggingface.co/datasets/locuslab/TOFU",
        size="4,000 questions about 200 authors; 100 about real authors, 117 about the world",
    ),
    _problem("forget01", 2),
    _problem("forget05", 10),
    _problem("forget10", 20),
    MetricSpec(
        name="probability",
        summary="how probable an answer is, per token; and against wrong ones",
        load=f"{__name__}.metrics:Probability",
        config=ProbabilityConfig,
        by_example=True,
        paper=PAPER,
        values={
            "probability": ValueSpec(
                "exp(mean log-probability per token of the text)",
                better="higher",
                lowest=0,
                highest=1,
                reliability=studied(".82", ".49", ".87"),
            ),
            "share": ValueSpec(
                "the same of the right choice, over its sum with those of the wrong ones",
                better="higher",
                lowest=0,
                highest=1,
            ),
        },
    ),
    MetricSpec(
        name="truth-ratio",
        summary="how probable wrong answers are, against a paraphrase of the right one",
        load=f"{__name__}.metrics:TruthRatio",
        config=TruthRatioConfig,
        by_example=True,
        paper=PAPER,
        values={
            "true-better": ValueSpec("max(0, 1 - ratio)", better="higher", lowest=0, highest=1),
            "closer-to-1": ValueSpec("min(ratio, 1 / ratio)", lowest=0, highest=1),
            "share": ValueSpec(
                "right / (right + wrong) = 1 / (1 + ratio)",
                better="higher",
                lowest=0,
                highest=1,
                reliability=studied(".95", ".13", ".99"),
            ),
            "ratio": ValueSpec("wrong / right, each exp(mean log-probability per token)", lowest=0),
            "forget-quality": ValueSpec(
                "log10 p of a two-sample Kolmogorov-Smirnov test of the ratios; 0 = as if never trained on them",
                better="higher",
                highest=0,
                versus="ks",
                of="ratio",
            ),
        },
    ),
)
