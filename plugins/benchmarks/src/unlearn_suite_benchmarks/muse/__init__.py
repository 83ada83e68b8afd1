"""MUSE (arXiv:2407.06460): forget news articles or a book series, on six axes."""

from __future__ import annotations

from unlearn_suite import DatasetSpec, ProblemSpec

from .data import MuseConfig

PAPER = "arXiv:2407.06460"

SPECS = (
    DatasetSpec(
        name="muse",
        summary="MUSE: texts, questions, and membership sets of News and Books, from the hub or a folder",
        load=f"{__name__}.data:load",
        config=MuseConfig,
        licence="CC-BY-4.0 (the texts are their authors')",
        source="https://huggingface.co/datasets/muse-bench/MUSE-News, .../MUSE-Books",
        size="100 questions of each kind and 100 beginnings a corpus, articles or books of millions of words",
    ),
    ProblemSpec(
        name="muse-news",
        summary="Forget news articles; keep other articles, what they told, and plain English",
        fragment=f"{__name__}:problems/muse-news.yaml",
        paper=PAPER,
    ),
    ProblemSpec(
        name="muse-books",
        summary="Forget the text of a book series; keep what a fan site tells of it, and plain English",
        fragment=f"{__name__}:problems/muse-books.yaml",
        paper=PAPER,
    ),
)
