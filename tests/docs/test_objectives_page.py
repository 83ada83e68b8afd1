"""docs/reference/objectives.md says what the cards say."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from unlearn_suite_baselines.cards import CARDS

PAGE = (Path(__file__).parents[2] / "docs/reference/objectives.md").read_text(encoding="utf-8")


def test_every_objective_has_its_row_and_its_section():
    rows = dict(re.findall(r"^\| \[([a-z-]+)\]\(#[a-z-]+\) \| (\w+) \|", PAGE, flags=re.MULTILINE))
    assert rows == {card.SPEC.name: card.SPEC.fidelity for card in CARDS}
    assert re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE) == [card.SPEC.name for card in CARDS]


def test_equations_and_papers_are_those_of_the_cards():
    """Run docs/reference/make_objectives.py when this fails."""
    for card in CARDS:
        for part in inspect.cleandoc(card.__doc__).split("\n\n"):
            assert inspect.cleandoc(part) in PAGE, f"{card.SPEC.name}: {part.splitlines()[0]}"
        assert f"Paper: {card.SPEC.paper}." in PAGE
