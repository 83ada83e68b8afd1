"""What `plugins show` says of an entry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from unlearn_suite.cli.describe import entry_json, entry_lines, type_name
from unlearn_suite.specs import Config


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "int"),
        (float | None, "float or null"),
        (Literal["none", "relearn"], "none|relearn"),
        (int | list[int] | None, "int or list of int or null"),
        (tuple[str, ...], "list of text"),
        (tuple[float, float], "[float, float]"),
        (Sequence[Path], "list of path"),
        (dict[str, Any], "mapping"),
        (Annotated[int, Field(ge=0)], "int"),
        (bool, "true|false"),
        (Config, "mapping"),
    ],
)
def test_types_in_words(annotation: Any, words: str) -> None:
    assert type_name(annotation) == words


def test_an_objective(catalog: Any) -> None:
    shown = entry_json(catalog.find("objective", "rmu"))
    assert shown["options"][0] == {
        "name": "block",
        "type": "int",
        "required": True,
        "doc": "block that is read, counted from 0",
    }
    assert list(entry_lines(shown)) == [
        "fake/rmu (objective, fake 1.0)",
        "  misdirect",
        "  paper: arXiv:1",
        "  data roles: forget, retain",
        "  trains by default with: steps 40, lr 0.0001",
        "  options:",
        "    block: int, required",
        "        block that is read, counted from 0",
        "    alpha: float, >= 0, default 60.0",
        "        weight of the retain part",
        "    meta: none|relearn, default relearn",
        "        simulated attacker",
        "    blocks: int or list of int or null, default null",
        "        blocks that are trained",
        "    fork_every: int, >= 1, default 4",
        "        steps between forks",
        "    warm: mapping",
        "        how it warms up",
        "    warm.rate: float, > 0, <= 1, default 0.5",
        "        how fast",
    ]


def test_a_metric_and_a_problem(catalog: Any, tmp_path: Path) -> None:
    lines = list(entry_lines(entry_json(catalog.find("metric", "cloze"))))
    assert lines[2:6] == ["  values:", "    exact", "        exact match", "    nll"]
    lines = list(entry_lines(entry_json(catalog.find("problem", "everyday"))))
    assert lines == [
        "fake/everyday (problem, fake 1.0)",
        "  forget one subject",
        "  data roles: forget, retain",
        "  metric entries: recall (lower), sampled (keep)",
        "  stages: default",
    ]
    fragment = tmp_path / "site/fake_plan_plugin/problems/everyday.yaml"
    line = "{metric: recall, value: exact, of: relative_change, below: 0.1, above: -1}"
    fragment.write_text(f"{fragment.read_text()}expect: [{line}]\n")
    lines = list(entry_lines(entry_json(catalog.find("problem", "everyday"))))
    assert lines[4:6] == ["  expects:", "    relative change of recall exact: above -1 and below 0.1"]
