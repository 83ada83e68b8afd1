"""Stereotypes: pairs of CrowS-Pairs (arXiv:2010.00133) and triples of StereoSet (arXiv:2004.09456)."""

from __future__ import annotations

from unlearn_suite import DatasetSpec, MetricSpec, ProblemSpec, ValueSpec

from .crows_pairs import CrowsPairsConfig
from .metric import IcatConfig
from .stereoset import StereosetConfig

_HERE = "unlearn_suite_benchmarks.stereotypes"

SPECS = (
    DatasetSpec(
        name="crows-pairs",
        summary="CrowS-Pairs: sentences with a stereotype, each with one that differs in the group of people",
        load=f"{_HERE}.crows_pairs:load",
        config=CrowsPairsConfig,
        licence="CC-BY-SA-4.0",
        source="https://github.com/nyu-mll/crows-pairs",
        size="1,508 pairs",
    ),
    DatasetSpec(
        name="stereoset",
        summary="StereoSet: a stereotype, its opposite and an unrelated text for the same context",
        load=f"{_HERE}.stereoset:load",
        config=StereosetConfig,
        licence="CC-BY-SA-4.0",
        source="https://github.com/moinnadeem/StereoSet",
        size="the development set: 2,106 sentences with a blank, 2,123 after a context",
    ),
    MetricSpec(
        name="stereoset",
        summary="StereoSet's language model score and stereotype score, by mean log-likelihood per token",
        load=f"{_HERE}.metric:Stereoset",
        paper="arXiv:2004.09456",
        values={
            "stereotype-score": ValueSpec(
                "the stereotype is more likely than its opposite; mean over target terms, 0.5 without bias",
                chance=0.5,
                lowest=0,
                highest=1,
            ),
            "lm-score": ValueSpec(
                "stereotype and opposite are more likely than the unrelated text; mean over target terms",
                better="higher",
                chance=0.5,
                lowest=0,
                highest=1,
            ),
        },
    ),
    MetricSpec(
        name="icat",
        summary="StereoSet's idealised context association test, of two other entries",
        load=f"{_HERE}.metric:Icat",
        config=IcatConfig,
        needs_data=False,
        combines="balanced",
        paper="arXiv:2004.09456",
        values={
            "icat": ValueSpec(
                "lm-score x min(s, 1 - s) / 0.5, s the stereotype-score: 1 for language without bias, 0 for all bias",
                better="higher",
                lowest=0,
                highest=1,
            ),
        },
    ),
    ProblemSpec(
        name="stereotypes",
        summary="Forget stereotypes of groups of people (CrowS-Pairs, StereoSet); keep language and plain English",
        fragment="unlearn_suite_benchmarks.stereotypes:problems/stereotypes.yaml",
    ),
)
