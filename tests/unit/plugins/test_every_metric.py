"""Every metric of this repository says what it is: formula, source, unit, range, direction, and what is known of it."""

from __future__ import annotations

import inspect
import re

import pytest

from unlearn_suite import MetricSpec
from unlearn_suite.plugins import Entry, load_catalog, load_target

ENTRIES = [e for e in load_catalog().entries("metric") if e.distribution == "unlearn-suite"]
NO_RANGE = {"pairs gap", "truth-ratio forget-quality"}
"""any number of nats, of either sign; a logarithm, 0 at most"""
NO_DIRECTION = {
    "mia": "0.5 is the aim of an auc, 0 that of privleak",
    "pairs": "the aim is one half, or the value of another model",
    "lm-eval": "the same two of its crows-pairs tasks",
    "stereoset": "one half is the aim of stereotype-score",
    "truth-ratio": "1 is the aim of ratio and closer-to-1 where it is to be forgotten",
    "multiple-choice": "chance is no result; far below it is as bad as above",
    "multiple-choice-robust": "chance is no result; who always picks one letter is consistent",
    "generations": "length",
    "fluency": "length",
    "toxicity": "length",
}
# AUC, after relearning, after rounding: arXiv:2605.24614
STUDIED = {
    "extraction-strength strength": (".89", ".66", ".97"),
    "exact-memorisation share": (".82", ".45", ".98"),
    "truth-ratio share": (".95", ".13", ".99"),
    "probability probability": (".82", ".49", ".87"),
    "cloze nll": (".82", ".49", ".87"),
    "rouge rougeL-recall": (".72", ".12", ".91"),
    "rouge rougeL-f1": (".72", ".12", ".91"),
    "mia min-k": (".91", ".37", ".87"),
    "mia loss": (".90", ".36", ".89"),
    "mia zlib": (".87", ".33", ".89"),
    "mia min-k-plus-plus": (".82", ".28", ".80"),
}
SOURCE = re.compile(r"Source: .*(arXiv:\d{4}\.\d{5}|lm-evaluation-harness|Lin 2004|github\.com/)", re.S)


def spec_of(entry: Entry) -> MetricSpec:
    assert isinstance(entry.spec, MetricSpec)
    return entry.spec


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: str(entry.spec.name))
def test_a_metric_says_what_it_is(entry: Entry) -> None:
    spec = spec_of(entry)
    doc = inspect.getdoc(load_target(spec.load)) or ""
    assert SOURCE.search(doc), "its docstring has no `Source: ...`"
    if spec.name != "lm-eval":  # its tasks have the formulas
        assert re.search(r"^ {4}.*=", doc, re.M), "its docstring has no formula"
        for name in spec.values if spec.name not in ("generations", "fluency", "toxicity", "mia") else ():
            words = {name, name.rpartition("-")[2], "H" if spec.name == "harmonic-mean" else name}
            assert any(word in doc for word in words) or name == "chance", f"its docstring does not say what {name} is"
    for name, value in spec.values.items():
        place = f"{spec.name} {name}"
        assert value.summary, place
        assert place in NO_RANGE or value.lowest is not None, f"{place} tells no range"
        fraction = (value.lowest, value.highest) in {(0, 1), (-1, 1)}
        ratio = value.aggregate == "exp-mean" or place == "truth-ratio ratio" or value.versus == "ks"
        assert fraction or ratio or value.unit, f"{place} tells no unit"
        assert value.better or spec.name in NO_DIRECTION, f"{place} tells no direction"


def test_what_a_study_found_stands_with_every_value_that_it_studied() -> None:
    told = {
        f"{entry.spec.name} {name}": value.reliability
        for entry in ENTRIES
        for name, value in spec_of(entry).values.items()
        if value.reliability
    }
    assert set(told) == set(STUDIED)
    for place, numbers in STUDIED.items():
        found = re.findall(r"(?:AUC|to) (\.\d\d)", told[place])
        assert tuple(found[:3]) == numbers and "arXiv:2605.24614" in told[place], place
