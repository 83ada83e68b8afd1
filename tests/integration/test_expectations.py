"""What a problem expects, from the plan to the terminal, the page, summary.json and the exit code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from unlearn_suite.testing.run_plan import run_plan

PLAN = """
plan: 1
name: expects
models: {tiny: {path: model}}
problems:
  - name: animals
    data: {forget: {use: text, with: {path: animals.txt}}, retain: {use: text, with: {path: weather.txt}}}
    metrics:
      - {name: gone, use: perplexity, data: forget, want: higher}
      - {name: kept, use: perplexity, data: retain, want: keep}
    expect:
      - {metric: gone, of: relative_change, above: 0}
      - {metric: kept, of: relative_change, below: -0.99}
      - {metric: gone, value: nll, of: over_oracle, below: 100}
arms:
  base: {stages: []}
  ascent: {stages: [{use: gradient-ascent, steps: 3, lr: 1e-3, batch: 2}]}
  oracle: {stages: [{use: sft, with: {role: retain}, steps: 2, lr: 1e-3, batch: 2}]}
compute: {device: cpu}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "animals.txt").write_text("the cat drinks milk\n\nthe cow gives milk\n")
    (tmp_path / "weather.txt").write_text("rain falls in april\n\nsnow lies in winter\n")
    return tmp_path


def test_the_report_tells_and_the_exit_code_follows_only_if_the_plan_asks(folder: Path) -> None:
    ran = run_plan(PLAN, folder)
    number = {(r["arm"], r["metric"], r["value"]): r for r in ran.results}
    found = json.loads((ran.folder / "results/summary.json").read_text())["expected"]
    assert [(line["arm"], line["metric"], line["holds"]) for line in found] == [
        ("ascent", "gone", True),
        ("ascent", "kept", False),
        ("ascent", "gone", True),
    ]
    over = number["ascent", "gone", "nll"]["mean"] - number["oracle", "gone", "nll"]["mean"]
    assert math.isclose(found[2]["number"], over)
    assert found[1]["number"] == number["ascent", "kept", "perplexity"]["relative"]["mean"]
    told = " ".join(ran.told.split())
    assert "ascent: 2 of 3 that the problem expects; relative change of kept perplexity is" in told
    assert "What the problem expects" in ran.page and "gone nll over the oracle" in ran.page

    told = run_plan(f"{PLAN}expect: [{{problem: animals, arm: ascent}}]\n", folder, code=5).told
    assert ":10: relative change of kept perplexity of ascent on animals (tiny) is 0.0" in told, told
    assert "an expectation does not hold" in told and "over oracle of gone" not in told
    # of the untouched model nothing is asked, and of the oracle nothing is told
    page = ran.page[ran.page.index("What the problem expects") :]
    assert 'data-arm="oracle"' not in page[: page.index("</table>")]


def test_what_has_no_number_is_said(folder: Path) -> None:
    text = PLAN.replace("  oracle: {stages: [{use: sft, with: {role: retain}, steps: 2, lr: 1e-3, batch: 2}]}\n", "")
    told = " ".join(run_plan(text, folder).told.split())
    assert "without a number: gone nll over the oracle" in told
