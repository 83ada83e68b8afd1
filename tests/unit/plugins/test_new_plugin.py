"""`plugins new` refuses names that something else has."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlearn_suite.cli import main


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("toxicity", "problem", "there is a package unlearn_suite_toxicity already"),
        ("toxicity", "metric", "unlearn-suite has the metric 'toxicity' already"),
        ("npo", "objective", "unlearn-suite has the objective 'npo' already"),
        ("Npo", "objective", "is no name for a plugin"),
    ],
)
def test_a_name_that_is_taken(
    name: str, kind: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["plugins", "new", name, "--kind", kind, "--to", str(tmp_path)])
    assert told in capsys.readouterr().err and not list(tmp_path.iterdir())
