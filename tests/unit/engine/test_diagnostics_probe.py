"""The detector `probe`: evasion and over-steering for any objective, against scikit-learn on a whole model."""

from __future__ import annotations

import math
from hashlib import sha256

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unlearn_suite import Config, Example
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

from .test_diagnostics import Edit, Gentle, run, table

PROBE = {"detectors": ("probe",)}


@pytest.fixture
def told_apart() -> dict[str, list[Example]]:
    """Text to forget is full of one letter, text to keep of another; two texts of each unit."""
    generator = np.random.default_rng(0)

    def texts(letter: str, name: str) -> list[Example]:
        found = []
        for i in range(24):
            letters = generator.choice([*"bcdefghij ", *[letter] * 12], size=14)
            found.append(Example(f"{name}{i}", "".join(letters), unit=f"{name}-unit{i // 2}"))
        return found

    return {"forget": texts("z", "f"), "retain": texts("a", "r")}


def activations(model, examples):
    """[N, D] float64: mean output of block 2 over all tokens but the first."""
    model, tokenizer, rows = model.double(), tiny_tokenizer(), []
    kept = []
    handle = model.model.layers[2].register_forward_hook(
        lambda _, __, out: kept.append((out[0] if isinstance(out, tuple) else out)[0, 1:].mean(0))
    )
    for example in examples:
        with torch.no_grad():
            model(input_ids=torch.tensor([tokenizer(example.text)["input_ids"]]))
        rows.append(kept.pop().numpy())
    handle.remove()
    return np.stack(rows)


def sides(examples):
    """Texts, labels, and which of them the probe is fitted on: every other unit of a role, by hash."""
    texts, labels, fit = [], [], []
    for label, role in enumerate(("retain", "forget")):
        part = sorted(examples[role], key=lambda e: sha256(e.id.encode()).digest())
        units = sorted({e.unit for e in part}, key=lambda unit: sha256(unit.encode()).hexdigest())
        texts += part
        labels += [label] * len(part)
        fit += [e.unit in units[::2] for e in part]
    return texts, np.array(labels), np.array(fit)


def fitted(x, y):
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced")).fit(x, y)


def test_its_readings_are_those_of_scikit_learn_on_a_whole_model(told_apart, tmp_path):
    model, rows, _, _ = run(told_apart, tmp_path, Gentle(Config()), steps=4, lr=3e-2, length=64, **PROBE)
    assert [sorted(n for n in row if n.startswith("diag_")) != [] for row in rows] == [False, True, False, True]
    texts, y, fit = sides(told_apart)
    before, now = activations(tiny_model(), texts), activations(model, texts)
    old, fresh = fitted(before[fit], y[fit]), fitted(now[fit], y[fit])
    found = {name.removeprefix("diag_probe_"): value for name, value in rows[-1].items() if "probe" in name}
    expected = {
        "before": roc_auc_score(y[~fit], old.decision_function(before[~fit])),
        "old": roc_auc_score(y[~fit], old.decision_function(now[~fit])),
        "fresh": roc_auc_score(y[~fit], fresh.decision_function(now[~fit])),
    }
    start = old.decision_function(before[~fit])
    moved = old.decision_function(now[~fit]) - start
    way = start[y[~fit] == 1].mean() - start[y[~fit] == 0].mean()
    expected["gap"] = expected["fresh"] - expected["old"]
    expected["retain_shift"] = moved[y[~fit] == 0].mean() / way
    expected["forget_shift"] = moved[y[~fit] == 1].mean() / way
    assert expected["before"] > 0.9 and abs(expected["forget_shift"]) > 1e-3
    assert found == pytest.approx(expected, rel=2e-3, abs=1e-5)
    assert {texts[i].unit for i in np.flatnonzero(fit)}.isdisjoint(texts[i].unit for i in np.flatnonzero(~fit))


def mirrored(name, p):
    """All activations change sign, or nearly: what an old probe reads is told the other way round."""
    if "embed" in name:
        p.mul_(-1.0)


def renamed(name, p):
    """The letter of kept text looks like that of text to forget."""
    if "embed" in name:
        kept, forgotten = (tiny_tokenizer()(letter)["input_ids"][-1] for letter in "az")
        p[kept] = p[forgotten]


@pytest.mark.parametrize(
    ("edit", "scalar", "words"),
    [
        (mirrored, "diag_probe_gap", "a fresh probe finds what the old one no longer does"),
        (renamed, "diag_probe_retain_shift", "kept text moved along the probe"),
    ],
)
def test_it_fires_on_a_failure_made_for_it(edit, scalar, words, told_apart, tmp_path):
    _, rows, _, services = run(told_apart, tmp_path, Edit(edit, reads=2), steps=1, watch={"every": 1}, **PROBE)
    assert any(scalar in line and words in line for line in services.said), services.said
    row = table(tmp_path)[scalar]
    assert row[5].startswith("ALARM") and row[2] == rows[0][scalar]
    if edit is renamed:
        assert rows[0][scalar] > 0.5


def test_activations_that_are_no_numbers_are_alarming_and_end_nothing(told_apart, tmp_path):
    _, rows, _, services = run(told_apart, tmp_path, Edit(lambda n, p: p.mul_(math.nan), reads=2), steps=2, **PROBE)
    assert math.isnan(rows[1]["diag_probe_gap"]) and math.isnan(rows[1]["diag_probe_retain_shift"])
    assert rows[1]["diag_probe_before"] > 0.9 and len(services.said) == 2


def test_a_probe_that_tells_nothing_apart_has_no_direction(told_apart, tmp_path):
    same = {"forget": told_apart["forget"][::2], "retain": told_apart["forget"][1::2]}
    _, rows, _, services = run(same, tmp_path, Edit(renamed, reads=2), steps=2, **PROBE)
    assert {n for n in rows[1] if "probe" in n} == {"diag_probe_before"} and rows[1]["diag_probe_before"] < 0.75
    assert not services.said


def test_a_role_of_one_unit_cannot_be_split(told_apart, tmp_path):
    one = [Example(e.id, e.text, unit="same") for e in told_apart["forget"]]
    _, rows, _, services = run({**told_apart, "forget": one}, tmp_path, Gentle(Config()), steps=2, **PROBE)
    assert not any("probe" in name for row in rows for name in row) and not services.said


def test_it_is_silent_on_a_gentle_push_and_changes_no_bit(told_apart, tmp_path):
    watched, rows, _, services = run(told_apart, tmp_path / "on", Gentle(Config()), **PROBE)
    bare, _, _, _ = run(told_apart, tmp_path / "off", Gentle(Config()), on=False)
    assert all(torch.equal(p, q) for p, q in zip(watched.parameters(), bare.parameters(), strict=True))
    assert "diag_probe_gap" in rows[-1] and not services.said


def test_it_reads_as_many_texts_as_it_is_told(told_apart, tmp_path):
    few, many = (
        run(told_apart, tmp_path / str(count), Gentle(Config()), watch={"probe_examples": count}, **PROBE)[1][-1]
        for count in (8, 24)
    )
    assert few["diag_probe_forget_shift"] != many["diag_probe_forget_shift"]
