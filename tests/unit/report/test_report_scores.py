"""The unified score against numbers worked out by hand, and the front of a sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlearn_suite.report import stats, write_report, write_summary
from unlearn_suite.report.front import front
from unlearn_suite.report.judge import ValueInfo
from unlearn_suite.report.scores import _rule, dominated
from unlearn_suite.store import CellDir, RunDir

EXAM = {"summary": "", "better": "higher", "lowest": 0, "highest": 1, "chance": 0.25, "aggregate": "mean"}
SHARE = {"summary": "", "better": "lower", "lowest": 0, "highest": 1, "aggregate": "mean"}
PPL = {"summary": "", "better": "lower", "lowest": 1, "aggregate": "exp-mean"}

# (entry, want, value's spec, base values of four items, unlearned values of the same items)
ENTRIES = [
    ("exam", "lower", EXAM, [1, 1, 1, 1], [1, 1, 0, 0]),
    ("rude", "lower", SHARE, [0.4, 0.4, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]),
    ("facts", "keep", EXAM, [1, 1, 1, 1], [1, 1, 1, 0]),
    ("perplexity", "keep", PPL, [np.log(20.0)] * 4, [np.log(25.0)] * 4),
]
# exam (1 - .5)/(1 - .25), rude (.4 - .1)/.4; facts (.75 - .25)/.75, perplexity 20/25
F = (0.5 / 0.75 + 0.3 / 0.4) / 2
R = 2 / (1 / (0.5 / 0.75) + 1 / 0.8)
U = 2 * F * R / (F + R)


def make(root: Path, entries: list[Any], arms: dict[str, tuple[float, str]]) -> Path:
    """A run with the base model and arms; an arm's number mixes base (0) and unlearned values (1)."""
    run = RunDir.open(root, "scored", ["unlearn-suite", "run", "plan.yaml"])
    ids = []
    for arm, (mix, family) in {"base": (0.0, ""), **arms}.items():
        metrics = [
            {
                "name": n,
                "use": f"x/{n}",
                "want": want,
                "show": ["value"],
                "key": n,
                "values": {"value": spec},
                "with": {},
            }
            for n, want, spec, _, _ in entries
        ]
        cell = {
            "id": f"{len(ids):010x}",
            "problem": "both",
            "model": "m",
            "arm": arm,
            "seed": 0,
            "stages": [] if arm == "base" else [{"use": f"x/{arm}", "with": {}, "train": {}}],
            "metrics": metrics,
            "plugins": {},
            "summary": {"problem": "two things", "family": family},
        }
        folder: CellDir = run.cell_dir(cell)
        ids.append({"id": cell["id"], "folder": folder.path.name})
        folder.set_status(state="done")
        for name, _, _, base, after in entries:
            values = (1 - mix) * np.array(base, float) + mix * np.array(after, float)
            rows = [
                {"id": f"{name}{i}", "unit": f"{name}{i}", "values": {"value": float(v)}} for i, v in enumerate(values)
            ]
            folder.write_scores(name, rows)
            if arm == "base":
                folder.publish_shared(name, name)
    run.save_plan("plan: 1\n", {"name": "scored", "cells": ids})
    run.close()
    return run.path


def scores_of(path: Path) -> dict[str, Any]:
    data = json.loads(write_summary(path).read_text())
    return {score["arm"]: score for score in data["scores"]}


def test_a_score_worked_out_by_hand(tmp_path):
    path = make(tmp_path, ENTRIES, {"gone": (1.0, "")})
    found = scores_of(path)["gone"]
    assert found["F"]["mean"] == pytest.approx(F) == pytest.approx(0.7083, abs=1e-4)
    assert found["R"]["mean"] == pytest.approx(R) == pytest.approx(0.7273, abs=1e-4)
    assert found["U"]["mean"] == pytest.approx(U)
    assert [t["formula"] for t in found["forget"]] == [
        "clip((before − after) / (before − 0.25), 0, 1)",
        "clip((before − after) / (before − 0), 0, 1)",
    ]
    assert [t["formula"] for t in found["keep"]] == [
        "clip((after − 0.25) / (before − 0.25), 0, 1)",
        "clip(before / after, 0, 1)",
    ]
    # two of four exam items are right: the score's interval is that of the resampled share
    draws = np.random.default_rng(0).binomial(4, 0.5, 100_000) / 4
    shares = np.clip((1 - draws) / 0.75, 0, 1)
    lo, hi = np.quantile((shares + 0.75) / 2, [0.025, 0.975])
    assert (found["F"]["lo"], found["F"]["hi"]) == pytest.approx((lo, hi), abs=1e-9)
    assert found["left_out"] == []


def test_the_difference_from_the_best_arm_is_one_of_pairs(tmp_path):
    """By resampling four items by hand: each draw's U of both arms, on the same items."""
    root = make(tmp_path, ENTRIES, {"whole": (1.0, ""), "half": (0.5, ""), "none": (0.0, "")})
    whole, half, none = scores_of(root).values()
    assert whole["behind"] is None and whole["U"]["mean"] > half["U"]["mean"]
    assert half["behind"]["mean"] == pytest.approx(half["U"]["mean"] - whole["U"]["mean"])
    counts = next(stats.unit_draws(4))

    def unified(mix):
        terms = []
        for _, _, _spec, base, after in ENTRIES:
            now = (1 - mix) * np.array(base, float) + mix * np.array(after, float)
            terms.append([counts @ np.array(base, float) / 4, counts @ now / 4])
        (e0, e1), (r0, r1), (k0, k1), (p0, p1) = terms
        f = (np.clip((e0 - e1) / (e0 - 0.25), 0, 1) + np.clip((r0 - r1) / r0, 0, 1)) / 2
        kept = 2 / (1 / np.clip((k1 - 0.25) / (k0 - 0.25), 1e-12, 1) + 1 / np.clip(np.exp(p0 - p1), 0, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(2 / (1 / f + 1 / kept))

    lo, hi = np.quantile(unified(0.5) - unified(1.0), [0.025, 0.975])
    assert [half["behind"]["lo"], half["behind"]["hi"]] == pytest.approx([lo, hi], abs=1e-9)
    assert none["behind"]["mean"] == pytest.approx(-whole["U"]["mean"])
    assert "U − best" in write_report(root).read_text(encoding="utf-8")


def test_the_untouched_weights_score_nothing_and_keep_all(tmp_path):
    found = scores_of(make(tmp_path, ENTRIES, {"nothing": (0.0, "")}))["nothing"]
    assert found["F"]["mean"] == 0.0 and found["R"]["mean"] == 1.0 and found["U"]["mean"] == 0.0


def test_what_a_model_never_knew_is_left_out_and_said(tmp_path):
    guessed = ("guess", "keep", EXAM, [1, 0, 0, 0], [0, 0, 0, 0])
    found = scores_of(make(tmp_path, [*ENTRIES, guessed], {"gone": (1.0, "")}))["gone"]
    assert found["R"]["mean"] == pytest.approx(R)
    assert found["left_out"] == [{"measure": "guess value", "why": "the untouched model is not clearly above 0.25"}]


def test_an_arm_that_lacks_a_number_has_no_score(tmp_path):
    """Its mean over fewer terms would stand beside the others' as if it were theirs."""
    path = make(tmp_path, ENTRIES, {"gone": (1.0, ""), "broken": (1.0, "")})
    (broken,) = path.glob("cells/*.broken.*")
    CellDir(broken).scores_path("perplexity").unlink()
    assert set(scores_of(path)) == {"gone"}


def test_a_problem_without_anything_kept_has_no_score(tmp_path):
    assert scores_of(make(tmp_path, ENTRIES[:2], {"gone": (1.0, "")})) == {}


@pytest.mark.parametrize(
    ("want", "fields", "before", "after", "expected"),
    [
        ("lower", {"chance": 0.25}, 0.75, 0.2, 1.0),
        ("lower", {}, 3.0, 4.0, 0.0),
        ("higher", {"highest": 1.0}, 0.2, 0.6, 0.5),
        ("keep", {"better": "higher"}, 0.8, 0.9, 1.0),
        ("keep", {"better": "higher", "lowest": 0.5}, 0.9, 0.6, 0.25),
        ("keep", {"better": "lower"}, 20.0, 80.0, 0.25),
        ("keep", {"better": "lower"}, 0.0, 0.0, 1.0),
        ("keep", {"better": "lower"}, 0.0, 0.1, 0.0),
        ("keep", {"better": ""}, 10.0, 12.0, 0.8),
        ("keep", {"better": ""}, 10.0, 35.0, 0.0),
    ],
)
def test_terms(want, fields, before, after, expected):
    _, share = _rule(want, ValueInfo("v", **fields))
    assert float(share(np.array(before), np.array(after))) == pytest.approx(expected)
    assert _rule("higher", ValueInfo("v")) is None


def test_a_sweep_is_drawn_as_a_front(tmp_path, read_page):
    arms = {f"a.weight-{i}": (mix, "a") for i, mix in enumerate((0.2, 0.6, 1.0))} | {"other": (0.5, "")}
    path = make(tmp_path, ENTRIES, arms)
    page = write_report(path).read_text(encoding="utf-8")
    words = read_page(page).words
    assert "Trade-off: both" in words and "sweep of a" in words and "How these numbers are made" in words
    assert "U = 2 F R / (F + R)" in words
    assert "Trade-off" not in write_report(make(tmp_path / "two", ENTRIES, {"b": (1.0, "")})).read_text(
        encoding="utf-8"
    )


def test_the_front_joins_only_points_that_no_other_beats():
    from types import SimpleNamespace as Name

    def point(name: str, f: float, r: float) -> Any:
        number = [Name(mean=v, lo=v, hi=v) for v in (f, r, 0.5)]
        return Name(arm=name, family="s", forgotten=number[0], retained=number[1], unified=number[2])

    points = [point("a", 0.2, 0.9), point("b", 0.5, 0.5), point("c", 0.6, 0.8), point("d", 0.9, 0.3)]
    assert [dominated(points, p) for p in points] == [False, True, False, False]
    line = front(points, "p", "x").split("<polyline points=")[1].split(" class")[0]
    assert len(line.split()) == 3
