"""The objectives of docs/examples keep every promise of the conformance kit."""

from __future__ import annotations

from pathlib import Path

from unlearn_suite.testing import conformance

FOLDER = Path(__file__).parents[2] / "docs/examples"

test_salun, test_scrub, test_leace = (
    conformance.tests(f"{name}.py", files=[FOLDER / f"{name}.py"]) for name in ("salun", "scrub", "leace")
)
