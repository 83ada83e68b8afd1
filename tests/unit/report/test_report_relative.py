"""Numbers made of rows or of several entries: AUC against scikit-learn, forget quality and PrivLeak against their
definitions, harmonic means against scipy, intervals against plain resampling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import hmean, ks_2samp
from sklearn.metrics import roc_auc_score

from unlearn_suite.report import stats, write_report, write_summary
from unlearn_suite.report.ranked import ranked, versus
from unlearn_suite.specs import Config, MetricSpec, ValueSpec
from unlearn_suite.store import RunDir

Rows = list[dict[str, Any]]


def rows(values: Any, groups: Any = None, units: Any = None, names: tuple[str, ...] = ("v",)) -> Rows:
    found = []
    for i, value in enumerate(values):
        group = "" if groups is None else groups[i]
        unit = f"u{i}" if units is None else units[i]
        found.append({"id": f"x{i}", "values": dict.fromkeys(names, float(value)), "group": group, "unit": unit})
    return found


def labelled(rng: np.random.Generator, n: int, gap: float) -> tuple[np.ndarray, list[str]]:
    """Rounded values, so that there are ties; every third row is a non-member."""
    groups = ["non-member" if i % 3 == 0 else "member" for i in range(n)]
    x = rng.normal(size=n) + gap * np.array([g == "non-member" for g in groups])
    return x.round(1), groups


def test_auc_is_scikit_learns_and_its_interval_that_of_plain_resampling() -> None:
    rng = np.random.default_rng(3)
    x, groups = labelled(rng, 240, 0.7)
    labels = np.array([g == "non-member" for g in groups])
    found = stats.estimate(ranked([rows([*x, 99.0], [*groups, "neither"])], "v"), "auc")
    assert found is not None
    assert found.mean == pytest.approx(roc_auc_score(labels, x), abs=1e-12)
    picks = rng.integers(0, len(x), size=(1000, len(x)))
    theirs = np.quantile([roc_auc_score(labels[p], x[p]) for p in picks], [0.025, 0.975])
    assert [found.lo, found.hi] == pytest.approx(theirs, abs=0.012)


def test_units_of_many_rows_widen_the_interval_of_an_auc_and_other_groups_do_not_count() -> None:
    x, groups = labelled(np.random.default_rng(4), 60, 0.7)
    alone = stats.estimate(ranked([rows(x, groups)], "v"), "auc")
    copies = [rows(np.repeat(x, 4), np.repeat(groups, 4), np.repeat([f"u{i}" for i in range(60)], 4))]
    together = stats.estimate(ranked(copies, "v"), "auc")
    assert alone is not None and together is not None
    assert [together.mean, together.lo, together.hi] == pytest.approx([alone.mean, alone.lo, alone.hi])
    assert stats.estimate(ranked([rows(x, ["member"] * 60)], "v"), "auc") is None
    seeds = stats.estimate(ranked([rows(x, groups), rows(x + 5 * (np.array(groups) == "member"), groups)], "v"), "auc")
    assert seeds is not None and seeds.lo < 0.1 < seeds.mean < 0.5 < seeds.hi


def test_forget_quality_is_the_log_p_of_scipys_test() -> None:
    rng = np.random.default_rng(5)
    mine, oracle = rng.gamma(2, size=80), rng.gamma(2, size=80) * 1.5
    found = versus(ranked([rows(mine)], "v"), ranked([rows(oracle)], "v"), "ks").resampled("mean")
    assert found.point == pytest.approx(np.log10(ks_2samp(mine, oracle).pvalue), abs=1e-12)
    same = versus(ranked([rows(mine)], "v"), ranked([rows(mine)], "v"), "ks").resampled("mean")
    assert same.point == 0 and not same.values.any()
    apart = versus(ranked([rows(mine)], "v"), ranked([rows(mine + 1e6)], "v"), "ks").resampled("mean")
    assert apart.point == pytest.approx(np.log10(ks_2samp(mine, mine + 1e6).pvalue)) and apart.point < -40
    several = versus(ranked([rows(mine), rows(oracle)], "v"), ranked([rows(oracle)] * 2, "v"), "ks").resampled("mean")
    assert several.point == pytest.approx(found.point / 2)
    one_base = versus(ranked([rows(mine)], "v"), ranked([rows(oracle), rows(mine)], "v"), "ks").resampled("mean")
    assert one_base.point == pytest.approx(found.point / 2)


def test_every_seed_of_an_arm_counts_once() -> None:
    rng = np.random.default_rng(7)
    mine, other, oracle = rng.normal(size=40), rng.normal(2.0, size=40), rng.normal(size=40)
    arm, oracles = ranked([rows(mine), rows(other)], "v"), ranked([rows(oracle)] * 3, "v")
    found = versus(arm, oracles, "ks").resampled("mean")
    each = [np.log10(ks_2samp(x, oracle).pvalue) for x in (mine, other)]
    assert found.point == pytest.approx(np.mean(each))


def test_beyond_what_floats_hold_the_log_p_goes_on() -> None:
    x = np.arange(1200.0)
    found = versus(ranked([rows(x)], "v"), ranked([rows(x + 1e5)], "v"), "ks").resampled("mean")
    assert found.point == pytest.approx(np.log10(2) - 1200 * np.log10(np.e), rel=1e-6)


@pytest.mark.parametrize(("factor", "places"), [(1.6, 0.6), (3.0, 1.2)])
def test_the_interval_of_a_forget_quality_is_that_of_new_samples(factor: float, places: float) -> None:
    """Coverage, on pairs of samples drawn anew: what other questions would have given."""
    rng = np.random.default_rng(6)

    def drawn() -> tuple[np.ndarray, np.ndarray]:
        return rng.gamma(2, size=150), rng.gamma(2, size=150) * factor

    truth = np.median([np.log10(ks_2samp(*drawn()).pvalue) for _ in range(300)])
    inside, points = 0, []
    for _ in range(40):
        mine, oracle = drawn()
        found = versus(ranked([rows(mine)], "v"), ranked([rows(oracle)], "v"), "ks").resampled("mean").estimate()
        assert found is not None and found.lo <= found.mean <= found.hi
        inside += found.lo <= truth <= found.hi
        points.append(found.mean)
    assert inside >= 34
    assert np.median(points) == pytest.approx(truth, abs=places)


def test_privleak_is_relative_to_the_oracles_auc() -> None:
    rng = np.random.default_rng(7)
    (x, groups), (y, _) = labelled(rng, 90, 1.5), labelled(rng, 90, 0.2)
    labels = np.array([g == "non-member" for g in groups])
    a, o = roc_auc_score(labels, x), roc_auc_score(labels, y)
    found = versus(ranked([rows(x, groups)], "v"), ranked([rows(y, groups)], "v"), "privleak").resampled("mean")
    assert found.point == pytest.approx(((1 - a) - (1 - o)) / (1 - o) * 100)
    assert np.quantile(found.values, 0.025) < found.point < np.quantile(found.values, 0.975) < 0


def test_only_units_that_both_have_are_compared() -> None:
    mine, oracle = rows([1, 2, 3, 4, 50]), rows([4, 3, 2, 1, 60])[:4]
    assert versus(ranked([mine], "v"), ranked([oracle], "v"), "ks").resampled("mean").point == 0


# --- in a run

TR = {
    "ratio": {"summary": "", "better": "", "aggregate": "mean"},
    "quality": {"summary": "log10 p", "better": "higher", "highest": 0, "versus": "ks", "of": "ratio"},
}
LOSS = {
    "auc": {"summary": "", "lowest": 0, "highest": 1, "chance": 0.5, "aggregate": "auc"},
    "privleak": {"summary": "", "versus": "privleak", "of": "auc"},
}
SHARE = {"p": {"summary": "", "better": "higher", "lowest": 0, "highest": 1}}
UTILITY = {"harmonic-mean": {"summary": "", "better": "higher", "lowest": 0, "highest": 1}}

BALANCED = {"icat": {"summary": "", "better": "higher", "lowest": 0, "highest": 1}}


def entry(name: str, values: Any, show: list[str], want: str, **more: Any) -> Any:
    return {"name": name, "use": f"d/{name}", "want": want, "show": show, "key": f"k-{name}", "values": values, **more}


METRICS = [
    entry("truth", TR, ["quality", "ratio"], "higher"),
    entry("mia", LOSS, ["auc", "privleak"], "watch"),
    entry("one", SHARE, ["p"], "watch"),
    entry("two", SHARE, ["p"], "watch"),
    entry("utility", UTILITY, ["harmonic-mean"], "keep", combines="harmonic", **{"with": {"of": ["one", "two"]}}),
    entry("icat", BALANCED, ["icat"], "watch", combines="balanced", **{"with": {"of": ["one", "two"]}}),
]
LEVEL = {"base": 3.0, "npo": 1.2, "oracle": 1.0}


def values_of(arm: str) -> dict[str, Any]:
    rng = np.random.default_rng(11)
    x, groups = labelled(rng, 60, LEVEL[arm])
    one, two = rng.uniform(0.2, 1, size=50), rng.uniform(0, 0.9, size=40) ** LEVEL[arm]
    return {
        "truth": rows(rng.gamma(2, size=80) * LEVEL[arm], names=("ratio",)),
        "mia": rows(x, groups, names=("auc",)),
        "one": rows(one, names=("p",)),
        "two": rows(two, names=("p",)),
    }


def written(root: Path, arms: tuple[str, ...]) -> Path:
    run = RunDir.open(root, "relative", ["run"])
    ids = []
    for n, arm in enumerate(arms):
        stages = [] if arm == "base" else [{"use": "d/x", "with": {}, "train": {"steps": 1}}]
        head = {"id": f"{n:010x}", "problem": "books", "model": "smol", "arm": arm, "seed": 0, "stages": stages}
        folder = run.cell_dir({**head, "metrics": METRICS, "plugins": {}, "summary": {"problem": ""}})
        folder.set_status(state="done")
        for name, found in values_of(arm).items():
            folder.write_scores(name, found)
        ids.append({"id": head["id"]})
    run.save_plan("plan: 1\n", {"name": "relative", "cells": ids})
    run.close()
    return run.path


def numbers(path: Path) -> dict[tuple[str, str], Any]:
    found = json.loads(write_summary(path).read_text(encoding="utf-8"))["results"]
    return {(one["arm"], one["value"] if one["value"] != "p" else one["metric"]): one for one in found}


def test_a_run_tells_what_is_relative_to_its_oracle_and_what_is_combined(tmp_path: Path) -> None:
    path = written(tmp_path, ("base", "npo", "oracle"))
    found = numbers(path)
    data = {arm: values_of(arm) for arm in LEVEL}
    ratio = {arm: [row["values"]["ratio"] for row in data[arm]["truth"]] for arm in LEVEL}
    for arm in LEVEL:
        expected = np.log10(ks_2samp(ratio[arm], ratio["oracle"]).pvalue)
        assert found[arm, "quality"]["mean"] == pytest.approx(expected, abs=1e-9)
    quality = found["npo", "quality"]
    assert quality["base"]["mean"] == found["base", "quality"]["mean"]
    assert quality["headline"] and quality["verdict"] == {"state": "met", "word": "higher"}
    assert found["oracle", "privleak"]["mean"] == 0 and found["npo", "privleak"]["mean"] < 0
    for arm in LEVEL:
        means = [np.mean([row["values"]["p"] for row in data[arm][name]]) for name in ("one", "two")]
        assert found[arm, "harmonic-mean"]["mean"] == pytest.approx(hmean(means))
        assert found[arm, "icat"]["mean"] == pytest.approx(means[0] * min(means[1], 1 - means[1]) / 0.5)
    utility = found["npo", "harmonic-mean"]
    assert utility["n"] == 90 and utility["verdict"] is not None and not found["npo", "one"]["verdict"]
    page = write_report(path).read_text(encoding="utf-8")
    assert "of “ratio”, against the arm oracle" in page and "of non-members against members" in page


def test_the_interval_of_a_harmonic_mean_is_that_of_plain_resampling(tmp_path: Path) -> None:
    found = numbers(written(tmp_path, ("base", "npo")))["npo", "harmonic-mean"]
    rng = np.random.default_rng(1)
    one, two = ([row["values"]["p"] for row in values_of("npo")[name]] for name in ("one", "two"))
    draws = [hmean([np.mean(rng.choice(x, len(x))) for x in (one, two)]) for _ in range(2000)]
    assert [found["lo"], found["hi"]] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.01)


def test_without_an_oracle_nothing_stands_in_for_what_is_relative_to_it(tmp_path: Path) -> None:
    found = numbers(written(tmp_path, ("base", "npo")))
    assert ("npo", "quality") not in found and ("npo", "privleak") not in found
    ratio = found["npo", "ratio"]
    assert not ratio["headline"] and ratio["verdict"] is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"v": ValueSpec("", versus="ks")}, "needs both"),
        ({"v": ValueSpec("", versus="ks", of="w")}, "which no row has"),
        ({"v": ValueSpec("", versus="ks", of="w"), "w": ValueSpec("", aggregate="auc")}, "nothing else"),
        ({"v": ValueSpec("", versus="privleak", of="w"), "w": ValueSpec("")}, "privleak"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(values: dict[str, ValueSpec], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MetricSpec("m", "", "a.b:C", values, Config)
