"""docs/results/choose_settings.py: which setting of a sweep is taken, and the plan and presets made of it."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs/results/choose_settings.py"
TUNING = """plan: 1
problems: [everyday-knowledge]
arms:
  base: {stages: []}
  npo: {stages: [{use: npo, steps: 4}], sweep: {0.lr: [1e-5, 1e-4, 1e-3]}}
  npo-soft:
    stages: [{use: npo, with: {retain: kl}}]
    sweep: {0.with.beta: [0.5, 2.0]}
  rmu: {stages: [{use: rmu}], sweep: {0.with.alpha: [1, 10]}}
"""
REPORTED = """# kept
plan: 1
problems: [everyday-toxicity]
arms:
  # gone
  old: {stages: []}

  older: {stages: []}
seeds: [0, 1]
"""
SCORES = {"npo.lr-1e-05": (0.2, 1.0), "npo.lr-0.0001": (0.7, 0.98), "npo.lr-0.001": (1.0, 0.5)}
SCORES |= {"npo-soft.beta-0.5": (0.1, 0.9), "npo-soft.beta-2": (0.9, 0.8)}


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    run = tmp_path / "runs/tuning"
    (run / "results").mkdir(parents=True)
    (run / "plans").mkdir()
    (run / "plans/001.yaml").write_text("arms: {base: {stages: []}}\n")
    (run / "plans/002.yaml").write_text(TUNING)
    scores = [
        {"problem": "p", "arm": arm, "family": arm.split(".")[0], "F": {"mean": f}, "R": {"mean": r}}
        for arm, (f, r) in SCORES.items()
    ]
    (run / "results/summary.json").write_text(json.dumps({"scores": scores}))
    (tmp_path / "reported.yaml").write_text(REPORTED)
    monkeypatch.chdir(tmp_path)

    def made(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["choose_settings.py", "runs/tuning", *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out

    return made


def test_what_forgets_most_of_what_retains_enough_is_taken(call):
    assert call().splitlines()[2:] == [
        "| p | npo | lr-1e-05 (0.20, 1.00), **lr-0.0001 (0.70, 0.98)**, lr-0.001 (1.00, 0.50) |  |",
        "| p | npo-soft | **beta-0.5 (0.10, 0.90)**, beta-2 (0.90, 0.80) | none retains enough |",
    ]
    assert "**lr-0.001 (1.00, 0.50)**" in call("--gate", "0.5")


def test_the_reported_plan_gets_the_arms_at_the_settings_taken(call):
    assert call("--into", "reported.yaml") == (
        "# kept\nplan: 1\nproblems: [everyday-toxicity]\narms:\n"
        "  base: {stages: []}\n"
        "  npo: {stages: [{use: npo, steps: 4, lr: 0.0001}]}\n"
        "  npo-soft: {stages: [{use: npo, with: {retain: kl, beta: 0.5}}]}  # no setting retained enough\n"
        "  # rmu: no setting has results\n"
        "seeds: [0, 1]\n"
    )


def test_presets_are_made_of_what_retains_enough(call):
    assert call("--presets", "tiny", "--gate", "0.9") == (
        "# presets/npo.yaml\ntiny:\n  summary: npo as tuning chose it\n  tried: PAGE\n  stage:\n"
        "    steps: 4  # tried there\n    lr: 0.0001  # searched\n"
        "# presets/npo.yaml\ntiny-npo-soft:\n  summary: npo-soft as tuning chose it\n  tried: PAGE\n  stage:\n"
        "    with:\n      retain: kl  # tried there\n      beta: 0.5  # searched\n"
    )
